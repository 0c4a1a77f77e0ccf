"""Rows with the source's answers, on which versions of one model are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import onnx

from onnxtool.models.onnx.evaluate import evaluate, open_session
from onnxtool.models.signature import Role, Tensors
from onnxtool.reports.model import LabelDrift, LoweringAttempt
from onnxtool.validators.drift.fidelity import Fidelity
from onnxtool.validators.drift.labels import Quality
from onnxtool.validators.parity.pairs import Batch, Pair, Rows

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
    """Rows that run at once: inputs, the source's answers, auxiliary columns, and which rows they are."""

    feeds: Tensors
    truth: Tensors
    auxiliary: Tensors
    batch: Batch


@dataclass
class Trial:
    """The rows, and how a version is compared on them.

    Args:
        pair: The source, and the model whose versions are tried.
        rows: The rows that they are run on; the auxiliary columns are `labels`, if there are any.
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
        return self.pair.batching.count(self.rows.tensors)

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
        batching = self.pair.batching
        size = batching.size or max(1, min(BATCH, BUFFERED // self._each))
        tensors = self._drawn(most)
        count = batching.count(tensors)
        for start in range(0, count, size):
            batch = batching.rows(tensors, start, min(start + size, count), batching.size)
            yield self.pair.feeds(batch)

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
            fidelity.update(chunk.truth, self.pair.cut(found, chunk.batch), chunk.auxiliary)
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
        return self.pair.batching.take(self.rows.tensors, places)

    def _run(self, tensors: Tensors, auxiliary: Tensors) -> Iterator[_Chunk]:
        for batch in self.pair.batches(tensors):
            truth = self.pair.cut(self.pair.run_source(batch.tensors), batch)
            columns = {name: column[batch.start : batch.stop] for name, column in auxiliary.items()}
            yield _Chunk(self.pair.feeds(batch.tensors), truth, columns, batch)
