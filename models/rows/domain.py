"""The values that an input takes, so that made-up rows exercise a model instead of its error paths.

A model trained on prices around 30,000 predicts the same class for every draw from N(0, 1); a token id beyond
the vocabulary is no input at all. What a fitted model knows of its inputs is kept here, an input each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.models.signature import numpy_dtype

_MOST_DECIMALS = 8
_WHOLE = 7 / 8  # share of whole numbers where the thresholds are those of whole numbers


@dataclass(frozen=True)
class Domain:
    """The values that an input takes. Columns of a matrix may each have their own.

    Attributes:
        choices: The values themselves: categories, or words of a text.
        center: Mean of the numbers, a scalar or one for each column.
        spread: Standard deviation of the numbers, a scalar or one for each column.
        landmarks: For each column, values at which the model's answer changes (tree thresholds).
        low: Least whole number (inclusive).
        high: Greatest whole number (exclusive).
        words: How many choices are joined to one text; 0 means that each value is one choice.
        missing: Share of the numbers that are NaN, for a model that takes missing values.
        columns: A domain for each column of a matrix; the other attributes are then not used.
    """

    choices: tuple[Any, ...] = ()
    center: float | NDArray[np.float64] = 0.0
    spread: float | NDArray[np.float64] = 1.0
    landmarks: tuple[NDArray[np.float64], ...] = ()
    low: int = 0
    high: int = 10
    words: int = 0
    missing: float = 0.0
    columns: tuple[Domain, ...] = ()

    def sample(self, dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        """Draw an array.

        Args:
            dtype: Name of the dtype, as in `TensorSpec`.
            shape: Every dimension known.
            rng: Source of randomness; the same state gives the same array.
        """
        if self.columns:
            rows = (*shape[:-1], 1)
            return np.concatenate([column.sample(dtype, rows, rng) for column in self.columns], axis=-1)
        if self.choices:
            return self._sample_choices(dtype, shape, rng)
        if dtype == "string":
            alphabet = np.array(["a", "b", "c", "other", ""], dtype=object)
            return rng.choice(alphabet, size=shape)
        if dtype == "bool":
            return rng.integers(0, 2, size=shape).astype(bool)
        if "int" in dtype:
            count = max(self.high - self.low, 1)
            return (self.low + _every(count, shape, rng)).astype(dtype)
        values = rng.standard_normal(shape) * self.spread + self.center
        self._visit_landmarks(values, rng)
        if dtype == "float64":
            self._write_as_people_do(values, rng)
        if self.missing:
            values[rng.random(shape) < self.missing] = np.nan
        return values.astype(numpy_dtype(dtype))

    def _write_as_people_do(self, values: NDArray[np.float64], rng: np.random.Generator) -> None:
        """Round half of the numbers to a few decimals, as prices, percentages and measurements have them.

        float32 holds none of them exactly, and rows from files and data frames are made of them. Of a column whose
        thresholds lie at whole numbers or midway between two, as those of ages, identifiers and dates in seconds,
        most numbers are whole.
        """
        if values.ndim != 2 or not values.size:
            return
        spread = np.broadcast_to(np.abs(np.asarray(self.spread, dtype=np.float64)), values.shape[-1:])
        digits = 2 - np.floor(np.log10(np.where(np.isfinite(spread) & (spread > 0), spread, 1.0)))
        decimals = np.clip(digits + rng.integers(-1, 2, size=values.shape), 0, _MOST_DECIMALS)
        picked = rng.random(values.shape) < 0.5
        for column, marks in enumerate(self.landmarks[: values.shape[1]]):
            if len(marks) and np.array_equal(np.round(2 * marks), 2 * marks):
                decimals[:, column] = 0
                picked[:, column] = rng.random(len(values)) < _WHOLE
                values[:, column] = np.clip(values[:, column], -(2.0**53), 2.0**53)
        for places in np.unique(decimals[picked]):
            chosen = picked & (decimals == places)
            values[chosen] = np.round(values[chosen], int(places))

    def _sample_choices(self, dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        pool = np.array(self.choices, dtype=object)
        if not self.words:
            return pool[_every(len(pool), shape, rng)].astype(numpy_dtype(dtype))
        texts = np.empty(shape, dtype=object)
        for index in np.ndindex(shape):
            texts[index] = " ".join(pool[rng.integers(0, len(pool), size=rng.integers(1, self.words + 1))])
        return texts

    def _visit_landmarks(self, values: NDArray[np.float64], rng: np.random.Generator) -> None:
        """Put half of each column's values next to, and exactly at, the places where the answer changes."""
        if values.ndim != 2 or not values.size:
            return
        for column, marks in enumerate(self.landmarks[: values.shape[1]]):
            if not len(marks):
                continue
            chosen = marks[rng.integers(0, len(marks), size=len(values))]
            width = np.ptp(marks) / len(marks) or abs(marks[0]) * 0.1 or 1.0
            offset = rng.choice([0.0, 1e-3, -1e-3, 1.0, -1.0], size=len(values)) * width
            picked = rng.random(len(values)) < 0.5
            values[picked, column] = (chosen + offset)[picked]


def _every(count: int, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw whole numbers below `count`: each of them at least once where half of the places hold them all.

    Else the first, the last and a sample of the others: an entry of a table that no row looks up is not compared.
    """
    drawn = rng.integers(0, count, size=shape)
    flat = drawn.reshape(-1)
    room = flat.size // 2
    if room >= 2:
        entries = rng.permutation(count) if count <= room else rng.integers(0, count, size=room)
        entries[:2] = (0, count - 1) if count > room else entries[:2]
        flat[rng.choice(flat.size, len(entries), replace=False)] = entries
    return drawn
