"""Whether a difference appears again, in batches of which size, and whether the provider makes it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.evaluate import evaluate, exposing, intermediate
from onnxtool.models.onnx.providers import CPU, session_on
from onnxtool.models.signature import Tensors
from onnxtool.validators.numerics.tolerance import Limit
from onnxtool.validators.parity.input_rounding import row_differences
from onnxtool.validators.parity.pairs import Pair


@dataclass(frozen=True, slots=True)
class Rerun:
    """What came of running the worst rows again.

    Attributes:
        size: Rows of the smallest batch in which they differ again; None where they do not.
        without: Sizes of the batches in which they do not.
        agrees_on_cpu: Whether the model agrees with the source on the CPU, with ONNX Runtime's own options. None
            where it ran so in the first place, or the rows do not differ again.
    """

    size: int | None
    without: list[int]
    agrees_on_cpu: bool | None = None


def rerun(
    pair: Pair,
    worst: Sequence[Tensors],
    context: Tensors,
    sizes: Sequence[int],
    *,
    rtol: Limit = None,
    atol: Limit = None,
) -> Rerun:
    """Run rows that differed once more, among ordinary rows, in batches of each size until they differ.

    Args:
        pair: The models, on the provider that was compared.
        worst: The rows: one row of the source's inputs each, the worst first.
        context: Ordinary rows that fill the batches.
        sizes: The sizes of batches.
        rtol: Of the comparison that failed.
        atol: Of the comparison that failed.

    Raises:
        ModelError: ONNX Runtime fails on a batch.
        SourceError: the source model does.
    """
    without: list[int] = []
    for size in [fixed] if (fixed := pair.batching.size) else sorted(set(sizes)):
        tensors = batch_of(pair, worst, context, size)
        truth, found = pair.run(tensors)
        few = min(len(worst), size)

        def is_off(
            answer: Tensors, truth: Tensors = truth, tensors: Tensors = tensors, few: int = few, size: int = size
        ) -> bool:
            limits = pair.tolerances(tensors, truth, rtol, atol)
            return bool(row_differences(truth, answer, pair.source.roles, limits, size).off[:few].any())

        if not is_off(found):
            without.append(size)
            continue
        if pair.provider == CPU and not pair.options:
            return Rerun(size, without)
        plain = pair.model.predict(pair.model.session(), pair.feeds(tensors))
        return Rerun(size, without, not is_off(pair.renamed(truth, plain)))
    return Rerun(None, without)


def batch_of(pair: Pair, worst: Sequence[Tensors], context: Tensors, size: int) -> Tensors:
    """A batch of the worst rows, filled up with ordinary ones, again and again."""
    batching = pair.batching
    parts = list(worst[:size])
    while (missing := size - len(parts)) > 0:
        count = min(missing, batching.count(context))
        parts += [batching.rows(context, place, place + 1) for place in range(count)]
    return batching.join(parts)


def opened_on(pair: Pair, proto: onnx.ModelProto, feeds: Tensors) -> Tensors:
    """Every tensor of the graph as the pair's provider makes it, by name.

    With each tensor as an output the provider joins fewer nodes than it does otherwise.

    Args:
        pair: The models.
        proto: The ONNX model, whole.
        feeds: One batch of its inputs.

    Raises:
        OnnxtoolError: the provider cannot run that.
    """
    names = [name for name in intermediate(proto.graph) if name not in feeds]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "opened.onnx"
        onnx.save(exposing(proto, names), path)
        session, _ = session_on(OnnxModel.read(path), pair.provider, pair.options)
        made = evaluate(session, feeds)
    return {name: np.asarray(made[name]) for name in names if name in made}
