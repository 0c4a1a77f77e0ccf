"""The mathematics of parity: one output of two models, chunk by chunk, in memory that does not grow.

Nothing here runs a model or renders a result.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.models.signature import Role, dtype_name, numpy_dtype
from onnxtool.reports.model import Bin, Difference, OutputParity, Tolerance
from onnxtool.validators.numerics.tolerance import PRECISION, Tolerances, coarser

WORST_ROWS = 5

SYSTEMATIC = 3.0
"""Mean difference, over what rounding makes on average, from which it is no rounding. Keras's layers reach 0.65."""

# Absolute differences are counted by the upper 16 bits of their float32 pattern: sign, exponent and 7 bits of
# the fraction. That is a histogram with bins of 1/128 relative width over the whole range of float32.
_SHIFT = 16
_BINS = 1 << (32 - _SHIFT - 1)
_BINS_PER_OCTAVE = 1 << 7
_INFINITY = 0x7F800000


class OutputComparison:
    """Compares one output of the ONNX model with the source's.

    Args:
        name: Name of the output.
        role: `label` outputs must be equal; for `probabilities` changes of the most probable class are counted too.
        tolerances: Sources of the tolerance; by default the dtype's.
        first: Position of the first row.
    """

    def __init__(
        self, name: str, role: Role = "values", tolerances: Tolerances | None = None, first: int = 0
    ) -> None:
        self._first = first
        self._name, self._role, self._tolerances = name, role, tolerances or Tolerances()
        self._dtypes = ("", "")
        self._row_shape: tuple[int, ...] = ()
        self._tolerance = Tolerance(rtol=0.0, atol=0.0, reason="nothing compared")
        self._rows = self._elements = self._mismatched_rows = self._mismatched_elements = 0
        self._mismatched_nonfinite = self._below_floor = self._zeros = self._compared = 0
        self._max_absolute = self._sum_absolute = self._max_relative = self._max_ulps = self._sum_source = 0.0
        self._flips: int | None = None
        self._counts = np.zeros(_BINS, dtype=np.int64)
        self._worst: list[tuple[float, int, Difference]] = []
        self._problem: str | None = None

    def update(self, source: NDArray[Any], onnx: NDArray[Any]) -> None:
        """Compare the next rows.

        Args:
            source: The source's output, rows along the first axis.
            onnx: The ONNX model's output for the same rows. `[n]` and `[n, 1]` count as the same shape.
        """
        source, onnx = np.asarray(source), np.asarray(onnx)
        self._dtypes = (dtype_name(source), dtype_name(onnx))
        self._tolerance = self._tolerances.of(self._name, *self._dtypes)
        if _columns(source) != _columns(onnx):
            self._problem = f"Shapes differ: {list(source.shape)} in the source, {list(onnx.shape)} in ONNX."
            return
        self._row_shape = source.shape[1:]
        source = source.reshape(len(source), -1) if source.ndim else source.reshape(1, 1)
        onnx = onnx.reshape(source.shape)
        floating = all(array.dtype.kind in "fV" or dtype_name(array) in PRECISION for array in (source, onnx))
        if floating or self._tolerance.atol:  # steps of a quantized output
            with np.errstate(
                over="ignore", divide="ignore", invalid="ignore"
            ):  # infinity is the right answer then
                off, excess = self._compare_floats(source, onnx)
        else:
            off, excess = _compare_equal(source, onnx)
        self._count_flips(source, onnx, off)
        self._keep_worst(source, onnx, excess)
        self._rows += len(source)
        self._elements += source.size
        if off.any():
            self._mismatched_elements += int(off.sum())
            self._mismatched_rows += int(off.any(axis=1).sum())

    def fail(self, problem: str) -> None:
        """Record why the output could not be compared at all."""
        self._problem = problem

    def worst_rows(self) -> list[tuple[float, int]]:
        """The rows that differ the most so far: by how many times what is allowed, and which."""
        return [(peak, -place) for peak, place, _ in self._worst]

    def result(self) -> OutputParity:
        """The verdict over all rows so far."""
        measured = bool(self._compared)
        noise_ratio = self._noise_ratio()
        return OutputParity(
            name=self._name,
            role=self._role,
            source_dtype=self._dtypes[0],
            onnx_dtype=self._dtypes[1],
            rows=self._rows,
            elements=self._elements,
            tolerance=self._tolerance,
            max_absolute=self._max_absolute if measured else None,
            mean_absolute=self._sum_absolute / self._compared if measured else None,
            p99_absolute=self._quantile(0.99) if measured else None,
            max_relative=self._max_relative if self._compared > self._below_floor else None,
            relative_floor=_relative_floor(self._tolerance) if measured else None,
            below_floor=self._below_floor,
            max_ulps=self._max_ulps if measured and coarser(*self._dtypes) in PRECISION else None,
            noise_ratio=noise_ratio,
            mismatched_nonfinite=self._mismatched_nonfinite,
            mismatched_elements=self._mismatched_elements,
            mismatched_rows=self._mismatched_rows,
            label_flips=self._flips,
            worst=[
                difference for _, _, difference in sorted(self._worst, key=lambda entry: (-entry[0], entry[1]))
            ],
            histogram=self._octaves(),
            zero_differences=self._zeros,
            problem=self._problem or (None if self._rows else "No rows were compared."),
            passed=self._problem is None
            and self._rows > 0
            and self._mismatched_elements == 0
            and (noise_ratio or 0.0) <= SYSTEMATIC,
        )

    def _noise_ratio(self) -> float | None:
        """Mean difference over what rounding makes, scaled to the magnitude of the values compared."""
        noise, magnitude = self._tolerance.noise, self._tolerance.magnitude
        if not noise or not self._compared:
            return None
        scale = max(1.0, self._sum_source / self._compared / magnitude) if magnitude else 1.0
        return self._sum_absolute / self._compared / (noise * scale)

    def _compare_floats(
        self, source: NDArray[Any], onnx: NDArray[Any]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """The elements out of tolerance, and each difference in units of the tolerance."""
        truth, other = source.astype(np.float64), onnx.astype(np.float64)
        magnitude = np.abs(truth)
        allowed = self._tolerance.atol + self._tolerance.rtol * magnitude
        difference = np.abs(other - truth)
        if np.isfinite(difference.sum()):  # then every element is: the usual case, and the fast one
            self._measure(source, onnx, difference, magnitude)
            return difference > allowed, _excess(difference, allowed)
        difference, off, mismatched_nonfinite = absolute_differences(truth, other, self._tolerance)
        finite = np.isfinite(truth) & np.isfinite(other)
        self._mismatched_nonfinite += int(mismatched_nonfinite.sum())
        self._measure(source[finite], onnx[finite], difference[finite], magnitude[finite])
        excess = _excess(difference, allowed)
        excess[mismatched_nonfinite] = np.inf
        excess[~finite & ~mismatched_nonfinite] = 0.0
        return off, excess

    def _measure(
        self,
        source: NDArray[Any],
        onnx: NDArray[Any],
        difference: NDArray[np.float64],
        magnitude: NDArray[np.float64],
    ) -> None:
        """Take finite elements into the statistics."""
        if not difference.size:
            return
        relative = magnitude >= _relative_floor(self._tolerance)
        above = int(np.count_nonzero(relative))
        moved = difference > 0
        self._compared += difference.size
        self._below_floor += difference.size - above
        self._max_absolute = max(self._max_absolute, float(difference.max()))
        self._sum_absolute += float(difference.sum())
        self._sum_source += float(magnitude.sum())
        self._zeros += difference.size - int(np.count_nonzero(moved))
        keys = difference.astype(np.float32).view(np.uint32) >> _SHIFT
        self._counts += np.bincount(keys.reshape(-1), minlength=_BINS)[:_BINS]
        if moved.any() and coarser(*self._dtypes) in PRECISION:
            ulps = ulp_distance(source[moved], onnx[moved], coarser(*self._dtypes))
            self._max_ulps = max(self._max_ulps, float(ulps.max()))
        if above:
            largest = np.divide(difference, magnitude, out=np.zeros_like(difference), where=relative).max()
            self._max_relative = max(self._max_relative, float(largest))

    def _count_flips(self, source: NDArray[Any], onnx: NDArray[Any], off: NDArray[np.bool_]) -> None:
        if self._role == "label":
            self._flips = (self._flips or 0) + int(off.any(axis=1).sum())
        elif self._role == "probabilities" and source.shape[1] > 1:
            self._flips = (self._flips or 0) + int(np.count_nonzero(_likeliest(source) != _likeliest(onnx)))

    def _keep_worst(self, source: NDArray[Any], onnx: NDArray[Any], excess: NDArray[np.float64]) -> None:
        least = self._worst[-1][0] if len(self._worst) == WORST_ROWS else 0.0
        if not excess.size or excess.max() <= least:
            return
        peaks = excess.max(axis=1)
        count = min(WORST_ROWS, len(peaks))
        candidates = np.argpartition(-peaks, count - 1)[:count]
        for row in candidates[peaks[candidates] > least]:
            column = int(excess[row].argmax())
            difference = Difference(
                row=self._first + self._rows + int(row),
                index=[int(axis) for axis in np.unravel_index(column, self._row_shape)],
                source=_scalar(source[row, column]),
                onnx=_scalar(onnx[row, column]),
                **_distances(source[row, column], onnx[row, column], coarser(*self._dtypes)),
            )
            self._worst.append((float(peaks[row]), -difference.row, difference))
        self._worst = heapq.nlargest(WORST_ROWS, self._worst, key=lambda entry: entry[:2])

    def _quantile(self, q: float) -> float:
        rank = q * self._compared
        if rank <= self._zeros:
            return 0.0
        key = int(np.searchsorted(np.cumsum(self._counts), rank))
        return min(_edge(key + 1), self._max_absolute)

    def _octaves(self) -> list[Bin]:
        octaves = self._counts.reshape(-1, _BINS_PER_OCTAVE).sum(axis=1)
        octaves[0] -= self._zeros
        keys = np.flatnonzero(octaves)
        if not keys.size:
            return []
        return [
            Bin(
                low=_edge(int(key) * _BINS_PER_OCTAVE),
                high=_edge((int(key) + 1) * _BINS_PER_OCTAVE),
                count=int(octaves[key]),
            )
            for key in range(keys[0], keys[-1] + 1)
        ]


def _excess(difference: NDArray[np.float64], allowed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Differences in units of what is allowed; equal is 0 even where nothing is."""
    return np.divide(difference, allowed, out=np.zeros_like(difference), where=difference != 0)


def absolute_differences(
    source: NDArray[np.float64], onnx: NDArray[np.float64], allowed: Tolerance
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Absolute differences, and which elements are out of tolerance.

    NaN equals NaN, and an infinity equals itself; NaN or an infinity against anything else is off.

    Returns:
        |onnx - source| (0 where equal, inf or nan where one side is not finite), the elements that are off
        by `|onnx - source| > atol + rtol * |source|`, and those that are off for not being finite.
    """
    equal = (source == onnx) | (np.isnan(source) & np.isnan(onnx))
    finite = np.isfinite(source) & np.isfinite(onnx)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(equal, 0.0, np.abs(onnx - source))
        off = ~equal & ~(difference <= allowed.atol + allowed.rtol * np.abs(source))
    mismatched_nonfinite = ~equal & ~finite
    return difference, off | mismatched_nonfinite, mismatched_nonfinite


def ulp_distance(source: NDArray[Any], onnx: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    """The number of steps of `dtype` between two finite numbers; +0 and -0 are the same.

    Both are rounded to `dtype` first. Bit patterns of IEEE 754 numbers of one sign are ordered as the numbers
    are; see Bruce Dawson, "Comparing Floating Point Numbers, 2012 Edition".
    """
    with np.errstate(over="ignore"):
        first, second = (np.ascontiguousarray(a.astype(numpy_dtype(dtype))) for a in (source, onnx))
    ranks = [_rank(array) for array in (first, second)]
    low, high = np.minimum(*ranks), np.maximum(*ranks)
    distance: NDArray[np.float64] = (high - low).astype(np.float64)
    return distance


def _rank(array: NDArray[Any]) -> NDArray[np.uint64]:
    """Position of each number among all numbers of its dtype, from the most negative on."""
    bits = array.itemsize * 8
    pattern = array.view(f"u{array.itemsize}").astype(np.uint64)
    sign = np.uint64(1) << np.uint64(bits - 1)
    magnitude = pattern & (sign - np.uint64(1))
    return np.where(pattern & sign, sign - magnitude, sign + magnitude)


def _likeliest(probabilities: NDArray[Any]) -> NDArray[Any]:
    """The most probable class of each row; argmax is slow along two columns."""
    if probabilities.shape[1] == 2 and probabilities.dtype.kind == "f":
        return np.asarray(probabilities[:, 1] > probabilities[:, 0])
    return np.asarray(probabilities.argmax(axis=1))


def _compare_equal(source: NDArray[Any], onnx: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    if dtype_name(source) == "string" or dtype_name(onnx) == "string":
        source, onnx = source.astype(object), onnx.astype(object)
    off = np.asarray(source != onnx, dtype=bool)
    return off, off.astype(np.float64)


def _distances(source: Any, onnx: Any, dtype: str) -> dict[str, float | None]:
    """Absolute and relative difference and ULPs of two finite floats; nothing for anything else."""
    floats = all(np.asarray(value).dtype.kind in "fV" for value in (source, onnx))
    if not floats or not (np.isfinite(source) and np.isfinite(onnx)):
        return {}
    absolute = abs(float(onnx) - float(source))
    return {
        "absolute": absolute,
        "relative": absolute / abs(float(source)) if source != 0 else None,
        "ulps": float(ulp_distance(np.asarray([source]), np.asarray([onnx]), dtype)[0]),
    }


def _scalar(value: Any) -> int | float | str | bool:
    plain = value.item() if isinstance(value, np.generic) else value
    return plain if isinstance(plain, int | float | str | bool) else str(plain)


def _columns(array: NDArray[Any]) -> tuple[int, ...]:
    """The shape, without a trailing 1 of a column vector."""
    return array.shape[:1] if array.ndim == 2 and array.shape[1] == 1 else array.shape


def _relative_floor(allowed: Tolerance) -> float:
    """Below this the absolute tolerance decides, and a relative difference means nothing."""
    return allowed.atol / allowed.rtol if allowed.rtol > 0 else allowed.atol


def _edge(key: int) -> float:
    """Lower edge of a bin of the bit-pattern histogram; patterns beyond infinity are infinity too."""
    return float(np.array(min(key << _SHIFT, _INFINITY), dtype=np.uint32).view(np.float32))
