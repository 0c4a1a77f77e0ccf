"""Rows with the source's answers, on which versions of one model are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import onnx

from onnxtool.models.onnx.evaluate import evaluate, open_session
from onnxtool.models.rows.data import count_rows
from onnxtool.models.signature import Role, Tensors
from onnxtool.reports.model import LabelDrift, LoweringAttempt
from onnxtool.validators.drift.fidelity import Fidelity
from onnxtool.validators.drift.labels import Quality
from onnxtool.validators.parity.pairs import Pair, Rows, chunks, padded_slice, rows_only

SEARCHED = 2048
"""Rows on which versions are compared, drawn at random of more; the one that is kept is compared on all."""

NUMBERS = 2**24
"""Numbers that so many rows may have, and no less than `BATCH` of them: of images, versions are compared on fewer."""

BATCH = 32
"""Rows of which all tensors of a graph are in memory at a time, where they have no more than `BUFFERED` numbers."""

BUFFERED = 2**20


class Outcome(NamedTuple):
    """The result of a version."""

    attempt: LoweringAttempt
    drift: LabelDrift | None

    @property
    def error(self) -> float:
        """Its largest relative error."""
        return self.attempt.error

    @property
    def passed(self) -> bool:
        """Whether it loses no more than is allowed."""
        return self.attempt.passed


class _Chunk(NamedTuple):
    """Rows that run at once: inputs, the source's answers, auxiliary columns, batch size, and rows that count."""

    feeds: Tensors
    truth: Tensors
    auxiliary: Tensors
    size: int
    counted: int


@dataclass
class Trial:
    """The rows, and how a version is compared on them.

    Args:
        pair: The source, and the model whose versions are tried.
        rows: What they are run on; the auxiliary columns are `labels`, if there are any.
        labels: Where the labels come from.
        allowed: Largest loss by any measure, or None for each measure's own.
    """

    pair: Pair
    rows: Rows
    labels: str | None
    allowed: float | None

    @cached_property
    def total(self) -> int:
        """The number of rows."""
        return count_rows(self.rows.tensors, self.pair.source.inputs)

    @cached_property
    def searched(self) -> int:
        """On how many of them versions are compared."""
        return min(self.total, SEARCHED, max(BATCH, NUMBERS // self._each))

    @cached_property
    def _each(self) -> int:
        """Numbers of a row."""
        return max(1, sum(tensor.size for tensor in self.rows.tensors.values()) // max(self.total, 1))

    def batches(self, most: int = SEARCHED) -> Iterator[Tensors]:
        """At most `most` sampled rows, evenly spread over the sample, as the model takes them."""
        fixed = next((s.shape[0] for s in self.pair.model.inputs if s.shape and isinstance(s.shape[0], int)), None)
        size = fixed or max(1, min(BATCH, BUFFERED // self._each))
        tensors = self._drawn(most)
        count = count_rows(tensors, self.pair.source.inputs)
        for start in range(0, count, size):
            stop = start + size if fixed else min(start + size, count)
            batch = {name: padded_slice(tensor, start, stop, stop - start) for name, tensor in tensors.items()}
            yield self.pair.feeds(self.pair.feeds.rounded(batch))

    def compare(self, model: onnx.ModelProto, recipe: str, kept: int, *, on_all: bool = False) -> Outcome:
        """Run a version and compare it with the source.

        Args:
            model: The version.
            recipe: For the report.
            kept: How many nodes stay in float32, for the report.
            on_all: Whether all rows are run, and not `searched` of them.

        Raises:
            ModelError: ONNX Runtime refuses it or fails.
        """
        session = open_session(model)
        quality = Quality(self.labels, self._roles) if self.labels is not None else None
        fidelity = Fidelity(self._roles, self.allowed, quality)
        for chunk in (
            self._sample
            if not on_all or self.total == self.searched
            else self._run(self.rows.tensors, self.rows.auxiliary)
        ):
            found = self.pair.renamed(chunk.truth, evaluate(session, chunk.feeds))
            cut = {name: rows_only(output, chunk.size, chunk.counted) for name, output in found.items()}
            fidelity.update(chunk.truth, cut, chunk.auxiliary)
        drift = fidelity.drift()
        losses = fidelity.losses(drift)
        attempt = LoweringAttempt(
            recipe=recipe,
            kept=kept,
            error=fidelity.error(),
            losses=losses,
            passed=bool(losses) and all(loss.passed for loss in losses),
        )
        return Outcome(attempt, drift)

    @cached_property
    def _roles(self) -> dict[str, Role]:
        """The source's; with labels, a lone output with a column a class is taken for what ranks the classes."""
        roles = dict(self.pair.source.roles)
        if self.labels is not None and not {"label", "probabilities"} & {*roles.values()}:
            wide = [
                name for name, output in self._sample[0].truth.items() if output.ndim == 2 and output.shape[1] > 1
            ]
            roles |= dict.fromkeys(wide if len(wide) == 1 else (), "probabilities")
        return roles

    @cached_property
    def _sample(self) -> list[_Chunk]:
        places = self._places
        auxiliary = {name: column[places] for name, column in self.rows.auxiliary.items()}
        return list(self._run(self._drawn(self.searched), auxiliary))

    @cached_property
    def _places(self) -> np.typing.NDArray[np.intp]:
        if self.total == self.searched:
            return np.arange(self.total)
        return np.sort(np.random.default_rng(0).choice(self.total, self.searched, replace=False))

    def _drawn(self, most: int) -> Tensors:
        """Sampled rows, and of more than `most` of them some that are spread over all."""
        places = self._places
        if most < len(places):
            places = places[np.linspace(0, len(places) - 1, most).astype(int)]
        return {
            name: tensor[places] if tensor.ndim and len(tensor) == self.total else tensor
            for name, tensor in self.rows.tensors.items()
        }

    def _run(self, tensors: Tensors, auxiliary: Tensors) -> Iterator[_Chunk]:
        total = count_rows(tensors, self.pair.source.inputs)
        for start, stop, size in chunks(total, self.pair.model.inputs, small_first=False):
            batch = self.pair.feeds.rounded(
                {name: padded_slice(tensor, start, stop, size) for name, tensor in tensors.items()}
            )
            truth = self.pair.run_source(batch)
            cut = {name: rows_only(np.asarray(output), size, stop - start) for name, output in truth.items()}
            auxiliary_rows = {name: column[start:stop] for name, column in auxiliary.items()}
            yield _Chunk(self.pair.feeds(batch), cut, auxiliary_rows, size, stop - start)
