"""Where and why two models diverge: their steps compared one by one, and both in double precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxtool.errors import OnnxtoolError
from onnxtool.models.onnx.double import evaluate_in_double
from onnxtool.models.onnx.evaluate import evaluate, exposing, intermediate, open_session, whole
from onnxtool.models.signature import Tensors, dtype_name
from onnxtool.reports.model import ErrorComponents, Explanation, Stage
from onnxtool.validators.numerics.rounding import UNIT_ROUNDOFF
from onnxtool.validators.numerics.tolerance import Limit
from onnxtool.validators.parity.input_rounding import row_differences
from onnxtool.validators.parity.pairs import Pair, predict_source
from onnxtool.validators.parity.rerun import Rerun, batch_of, opened_on, rerun
from onnxtool.validators.parity.rounding_causes import rounding_causes
from onnxtool.validators.parity.thresholds import TREES, tree_splits

MOST_ROWS = 8
"""Rows that are explained."""

_CONTEXT = 24  # ordinary rows in addition, by which tensors are matched
_ELEMENTS = 2**15
_ALIKE = 1e-3  # relative difference in half of the rows up to which two tensors are taken for the same
_SIMILAR = 0.05  # the same for rows of so many numbers that chance does not make them similar
_MANY = 8
_JUMP = 10.0  # growth of the difference that is no rounding
_LEAST_JUMP = 32.0  # in roundings
_SHOWN = 5
_MOST_STAGES = 400
_LAYOUTS: Mapping[int, Sequence[tuple[int, ...]]] = {
    3: [(0, 2, 1)],
    4: [(0, 3, 1, 2), (0, 2, 3, 1)],
    5: [(0, 4, 1, 2, 3), (0, 2, 3, 4, 1)],
}


def explain(
    pair: Pair,
    worst: Mapping[int, Tensors],
    context: Tensors,
    *,
    sizes: Sequence[int] = (),
    rtol: Limit = None,
    atol: Limit = None,
) -> Explanation:
    """Find the first step or node after which the two models differ.

    Args:
        pair: The models, on the provider that was compared.
        worst: Rows that differ the most, by their position, the worst first: one row of the source's inputs each.
        context: Ordinary rows.
        sizes: Of the batches that were compared, where the rows are out of tolerance: the difference is first made
            to appear again.
        rtol: Of that comparison.
        atol: Of that comparison.

    Raises:
        ModelError: ONNX Runtime fails on a copy of the model.
        SourceError: the source model fails.
    """
    rows = list(worst)[:MOST_ROWS]
    proto = whole(pair.model)
    if proto is None or not rows:
        reason = "The model is too large to be opened up." if rows else "There is no difference to explain."
        return Explanation(rows=rows, against="source", cause=reason)
    again = rerun(pair, [worst[row] for row in rows], context, sizes, rtol=rtol, atol=atol) if sizes else None
    if again is not None and again.size is None:
        return Explanation(rows=rows, against="source", cause=_not_again(again))
    scene = _Scene.set(pair, proto, [worst[row] for row in rows], context, again)
    if again is not None and again.agrees_on_cpu:
        return _explained_by_provider(scene, rows, again)
    stages = _stages(scene)
    against: Literal["source", "float64"] = "source"
    if not any(stage.tensor for stage in stages):
        stages, against = _against_double(scene), "float64"
    first_difference = next((place for place, stage in enumerate(stages) if stage.difference), None)
    first_failure = _break(stages, scene.unit)
    cause, details = _story(scene, stages, against, first_difference, first_failure)
    rounding = rounding_causes(pair, [worst[row] for row in rows])
    if rounding:
        cause, details = _story_of_rounding(scene, rounding, cause, details)
    details = [*_about_batches(again), *details]
    shown = stages
    if len(stages) > _MOST_STAGES:  # around the first failure
        first = max(0, min((first_failure or 0) - _MOST_STAGES // 2, len(stages) - _MOST_STAGES))
        shown = stages[first : first + _MOST_STAGES]
        first_difference, first_failure = (
            place - first if place is not None and place >= first else None
            for place in (first_difference, first_failure)
        )
    return Explanation(
        rows=rows,
        against=against,
        stages=shown,
        first_difference=first_difference,
        first_failure=first_failure,
        cause=cause,
        details=details,
        error_components=list(_error_components(scene)),
    )


def _not_again(again: Rerun) -> str:
    sizes = ", ".join(map(str, again.without))
    return (
        f"The difference did not appear again: in batches of {sizes} the rows that differed most agree. The answers "
        "of one of the two models change from run to run, or with the other rows of the batch."
    )


def _about_batches(again: Rerun | None) -> list[str]:
    """In which batches the rows differ, where that is not in all."""
    if again is None or not again.without:
        return []
    without = ", ".join(map(str, again.without))
    return [f"The rows differ in a batch of {again.size}, and not in batches of {without}."]


def _explained_by_provider(scene: _Scene, rows: list[int], again: Rerun) -> Explanation:
    """The first node after which the provider differs from the CPU, which agrees with the source."""
    pair = scene.pair
    where = pair.provider.removesuffix("ExecutionProvider")
    if pair.options:
        where += f" with {' '.join(f'{name}={value}' for name, value in pair.options.items())}"
    stages, details = [], _about_batches(again)
    try:
        made = opened_on(pair, scene.proto, scene.pair.feeds(scene.tensors))
    except OnnxtoolError as error:
        details.append(f"The graph cannot be opened up there: {error}")
        made = {}
    for node in scene.proto.graph.node:
        name = node.output[0]
        if name not in made or name not in scene.opened or (found := made[name]).shape != scene.opened[name].shape:
            continue
        if found.ndim and len(found) >= scene.count and found.dtype.kind in "biuf":
            difference = float(_row_differences(scene.opened[name], found)[: scene.count].max(initial=0.0))
            stages.append(
                Stage(
                    name=node.name or name,
                    kind=node.op_type,
                    tensor=name,
                    difference=difference,
                    matched_by="name",
                )
            )
    first_difference = next((place for place, stage in enumerate(stages) if stage.difference), None)
    first_failure = _break(stages, scene.unit)
    cause = f"{where} computes otherwise than the CPU, where the model agrees with the source"
    if first_failure is None:
        details.append("With each tensor as an output no single step differs there: nodes that are joined do.")
    else:
        stage = stages[first_failure]
        cause += (
            f". They diverge at {stage.name} ({stage.kind}): {stage.difference:.2g} of the largest value after it"
        )
        if first_difference is not None and first_difference < first_failure:
            first = stages[first_difference]
            details.append(
                f"The first difference at all is {first.difference:.2g}, after {first.name} ({first.kind})."
            )
    return Explanation(
        rows=rows,
        against="source",
        provider=pair.provider,
        stages=stages if len(stages) <= _MOST_STAGES else [],
        first_difference=first_difference if len(stages) <= _MOST_STAGES else None,
        first_failure=first_failure if len(stages) <= _MOST_STAGES else None,
        cause=f"{cause}.",
        details=details,
    )


@dataclass
class _Scene:
    """Both models, opened up, on the rows to explain and on some ordinary ones.

    Attributes:
        tensors: The source's inputs, the rows to explain first.
        count: How many these are.
        opened: Every tensor of the ONNX model, without optimisations, by name.
        double: Every tensor of the graph in float64, for the rows to explain; empty where it cannot be run.
        truth: The source's outputs.
        cast: The same for the rows as they are cast for ONNX.
        found: The ONNX model's, as it runs for real, under the source's names.
        values: Values of the source's steps by the ONNX tensor that holds the same.
    """

    pair: Pair
    proto: onnx.ModelProto
    tensors: Tensors
    count: int
    opened: Tensors
    double: Tensors
    truth: Tensors
    cast: Tensors
    found: Tensors
    values: Tensors

    @classmethod
    def set(
        cls,
        pair: Pair,
        proto: onnx.ModelProto,
        worst: Sequence[Tensors],
        context: Tensors,
        again: Rerun | None = None,
    ) -> _Scene:
        each = sum(array.size for array in worst[0].values())
        context_rows = int(np.clip(_ELEMENTS // max(each, 1), 4, _CONTEXT))
        batching = pair.batching
        context_rows = min(context_rows, batching.count(context))
        tensors = batching.join([*worst, batching.rows(context, 0, context_rows)])
        if again is not None and again.without and again.size and not batching.size:
            tensors = batch_of(pair, worst, context, again.size)  # which alone shows the difference
        fixed, total = batching.size, batching.count(tensors)
        size = fixed or total
        tensors = batching.rows(tensors, 0, min(size, total), size)
        count = min(len(worst), size)
        feeds = pair.feeds(tensors)
        truth, found = pair.run(tensors)
        names = [name for name in intermediate(proto.graph) if name not in feeds]
        made = evaluate(open_session(exposing(proto, names), optimized=False), feeds)
        few = feeds if fixed else pair.feeds(batching.rows(tensors, 0, count))
        return cls(
            pair=pair,
            proto=proto,
            tensors=tensors,
            count=count,
            opened={**feeds, **{name: made[name] for name in names if name in made}},
            double=evaluate_in_double(proto, few),
            truth=truth,
            cast=predict_source(pair.source, pair.feeds.as_cast(tensors))
            if pair.feeds.changed(tensors)
            else truth,
            found=found,
            values={},
        )

    @property
    def unit(self) -> float:
        """Unit roundoff of the coarsest dtype of the outputs."""
        known = [UNIT_ROUNDOFF[name] for name in map(dtype_name, self.found.values()) if name in UNIT_ROUNDOFF]
        return max(known, default=UNIT_ROUNDOFF["float32"])


@dataclass(frozen=True)
class _Match:
    """An ONNX tensor that holds what a step of the source holds.

    Attributes:
        tensor: Its name.
        found: Its value, in the step's shape.
        distance: Relative difference in the median row.
        by: How it was found.
    """

    tensor: str
    found: NDArray[Any]
    distance: float
    by: Literal["name", "value"]


def _stages(scene: _Scene) -> list[Stage]:
    """Each step of the source, with the ONNX tensor of the same values."""
    steps = list(scene.pair.source.steps(scene.tensors))
    matches = [_match(np.asarray(step.value), step.name, scene) for step in steps]
    nearest: dict[str, float] = {}
    for known in filter(None, matches):
        nearest[known.tensor] = min(known.distance, nearest.get(known.tensor, known.distance))
    stages = []
    for step, match in zip(steps, matches, strict=True):
        # A batch normalisation that was folded away leaves a tensor that the convolution's output resembles.
        if match is None or match.distance > _JUMP * (nearest[match.tensor] + scene.unit):
            stages.append(Stage(name=step.name, kind=step.kind, tensor=None, difference=None))
            continue
        value = np.asarray(step.value)
        original = scene.opened[match.tensor]
        if original.size == value.size and original.ndim == value.ndim == 2:
            scene.values[match.tensor] = value
        difference = float(_row_differences(value, match.found)[: scene.count].max())
        stages.append(
            Stage(name=step.name, kind=step.kind, tensor=match.tensor, difference=difference, matched_by=match.by)
        )
    return stages


def _match(value: NDArray[Any], name: str, scene: _Scene) -> _Match | None:
    """By name where the converter kept it, else the nearest by value."""
    named = scene.opened.get(name)
    if named is not None and (aligned := _aligned(value, named)) is not None:
        return _Match(name, aligned, 0.0, "name")
    if not value.ndim or not value.size:
        return None
    most = _SIMILAR if value[0].size >= _MANY else _ALIKE
    best = None
    for tensor, array in scene.opened.items():
        for candidate in _arrangements(value, array):
            distance = float(np.median(_row_differences(value, candidate)))
            if distance <= most and (best is None or distance < best.distance):
                best = _Match(tensor, candidate, distance, "value")
    return best


def _arrangements(value: NDArray[Any], tensor: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The tensor in the shape of the value: as it lies, and with channels first or last."""
    aligned = _aligned(value, tensor)
    if aligned is not None:
        yield aligned
    if tensor.size != value.size or tensor.ndim != value.ndim:
        return
    for order in _LAYOUTS.get(tensor.ndim, ()):
        turned = tensor.transpose(order)
        if turned.shape == value.shape:
            yield turned


def _aligned(value: NDArray[Any], tensor: NDArray[Any]) -> NDArray[Any] | None:
    """The tensor in the value's shape where rows meet rows, and numbers numbers; else None."""
    same_kind = (value.dtype.kind in "biufV") == (tensor.dtype.kind in "biufV")
    rows = tensor.ndim and value.ndim and len(tensor) == len(value)
    return tensor.reshape(value.shape) if same_kind and rows and tensor.size == value.size else None


def _row_sizes(value: NDArray[Any]) -> NDArray[np.float64]:
    rows = value.astype(np.float64).reshape(len(value), -1)
    return np.asarray(np.abs(np.where(np.isfinite(rows), rows, 0.0)).max(axis=1, initial=0.0))


def _row_differences(value: NDArray[Any], other: NDArray[Any], least: float = 0.0) -> NDArray[np.float64]:
    """Largest difference of each row, relative to the largest value of the row, or to `least` if that is larger."""
    if value.dtype.kind not in "biufV":
        unequal = (value.astype(str) != other.astype(str)).reshape(len(value), -1)
        return np.asarray(unequal.any(axis=1), dtype=np.float64)
    first, second = (array.astype(np.float64).reshape(len(array), -1) for array in (value, other))
    with np.errstate(invalid="ignore"):
        differences = np.where(
            (first == second) | (np.isnan(first) & np.isnan(second)), 0.0, np.abs(first - second)
        )
    size = np.maximum(_row_sizes(value), least)
    differences[~np.isfinite(differences)] = np.inf
    largest = differences.max(axis=1, initial=0.0)
    relative: NDArray[np.float64] = np.divide(largest, size, out=largest.copy(), where=size > 0)
    return relative


def _against_double(scene: _Scene) -> list[Stage]:
    """Each node's first output against the graph in float64."""
    stages = []
    for node in scene.proto.graph.node:
        name = node.output[0]
        if name in scene.opened and name in scene.double and scene.opened[name].dtype.kind == "f":
            found, exact = scene.opened[name], scene.double[name]
            # A row that is nearly 0 is what is left of larger terms, and off by a rounding of those.
            usual = float(np.median(_row_sizes(found))) if found.ndim and len(found) else 0.0
            if found.ndim and exact.ndim and len(found) >= scene.count <= len(exact):
                found, exact = found[: scene.count], exact[: scene.count]
            if found.shape == exact.shape and found.ndim:
                difference = float(_row_differences(exact, found, usual).max(initial=0.0))
                stages.append(
                    Stage(
                        name=node.name or name,
                        kind=node.op_type,
                        tensor=name,
                        difference=difference,
                        matched_by="name",
                    )
                )
    return stages


def _break(stages: Sequence[Stage], unit: float) -> int | None:
    """The first stage whose difference is far above all those before it, and above rounding."""
    before = unit
    for place, stage in enumerate(stages):
        if stage.difference is None:
            continue
        if stage.difference > max(_JUMP * before, _LEAST_JUMP * unit):
            return place
        before = max(before, stage.difference)
    return None


def _story(
    scene: _Scene,
    stages: Sequence[Stage],
    against: Literal["source", "float64"],
    first_difference: int | None,
    first_failure: int | None,
) -> tuple[str, list[str]]:
    details = list(_about_optimisation(scene))
    differences = max((stage.difference or 0.0 for stage in stages), default=0.0)
    if first_failure is None:
        if against == "float64":
            what = (
                f"ONNX Runtime computes the graph as float64 does, to {differences:.2g}"
                if stages
                else "The graph has no float64 reference"
            )
            return f"{what}, and the source has no steps that can be looked at.", details
        return f"No single step: the difference grows from layer to layer, up to {differences:.2g}.", details
    stage = stages[first_failure]
    known = {str(entry.tensor): entry for entry in stages[:first_failure] if entry.difference is not None}
    nodes, reached = _between(scene.proto, str(stage.tensor), {*known, *scene.pair.feeds(scene.tensors)})
    earlier = [entry for tensor, entry in known.items() if tensor in reached]
    cause = f"They diverge at {stage.name} ({stage.kind}): {stage.difference:.2g} of the largest value after it"
    if earlier:
        cause += f", {earlier[-1].difference:.2g} before it, after {earlier[-1].name} ({earlier[-1].kind})"
    if nodes:
        details.append(f"In ONNX that is {', '.join(dict.fromkeys(node.op_type for node in nodes))}.")
    for node in nodes:
        if node.op_type in TREES:
            crossed = list(_crossed(node, scene))
            details += crossed[:_SHOWN]
            if crossed:
                origin = (
                    stages[first_difference]
                    if first_difference is not None and first_difference < first_failure
                    else None
                )
                blame = f" The difference comes from {origin.name} ({origin.kind})." if origin else ""
                more = f", {len(crossed)} in all" if len(crossed) > 1 else ""
                return f"{cause}. A feature lands on the other side of a tree's threshold{more}.{blame}", details
            details.append("No feature is on the other side of a threshold: the trees themselves differ.")
    if first_difference is not None and first_difference < first_failure:
        details.append(
            f"The first difference at all is {stages[first_difference].difference:.2g}, "
            f"after {stages[first_difference].name}."
        )
    return f"{cause}.", details


def _story_of_rounding(
    scene: _Scene, rounding: Sequence[str], cause: str, details: Sequence[str]
) -> tuple[str, list[str]]:
    """The cause where the rounding of the input moves rows: the rest counts as far as it moves them too."""
    first, *others = rounding
    rows = len(next(iter(scene.tensors.values())))
    tolerances = scene.pair.tolerances(scene.tensors, scene.truth, None, None)
    left = row_differences(scene.cast, scene.found, scene.pair.source.roles, tolerances, rows).off[: scene.count]
    if not left.any():
        return first, [*others, "On the rows as they are cast for ONNX, the two models agree."]
    return first, [*others, f"There is also another difference: {cause}", *details]


def _about_optimisation(scene: _Scene) -> Iterator[str]:
    """Whether the difference is there without ONNX Runtime's optimisations too."""
    for name, partner in scene.pair.partners.items():
        if partner not in scene.opened or name not in scene.truth or np.shape(scene.truth[name])[:1] == ():
            continue
        truth = np.asarray(scene.truth[name])
        plain, real = _aligned(truth, scene.opened[partner]), _aligned(truth, np.asarray(scene.found[name]))
        if plain is None or real is None:
            continue
        without, with_ = (float(_row_differences(truth, other)[: scene.count].max()) for other in (plain, real))
        if with_ > 2 * without + _LEAST_JUMP * scene.unit:
            yield (
                f"{name}: with ONNX Runtime's graph optimisations off, the difference is {without:.2g} "
                f"instead of {with_:.2g} of the largest value."
            )


def _between(proto: onnx.ModelProto, tensor: str, known: set[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that make a tensor out of known ones, in their order, and the known ones that they start from."""
    makers = {name: place for place, node in enumerate(proto.graph.node) for name in node.output}
    pending, places, reached = [tensor], set(), set()
    while pending:
        name = pending.pop()
        if name in known and name != tensor:
            reached.add(name)
        elif (place := makers.get(name)) is not None and place not in places:
            places.add(place)
            pending += proto.graph.node[place].input
    return [proto.graph.node[place] for place in sorted(places)], reached


def _crossed(node: onnx.NodeProto, scene: _Scene) -> Iterator[str]:
    """Features of the rows to explain that lie on different sides of a threshold in the two models."""
    name = node.input[0]
    theirs = scene.values.get(name, scene.double.get(name))
    ours = scene.opened.get(name)
    if theirs is None or ours is None or theirs.ndim != 2 or ours.ndim != 2:
        return
    source = "source" if name in scene.values else "float64"
    features, thresholds = tree_splits(node)
    for row in range(scene.count):
        for feature in np.flatnonzero(theirs[row] != ours[row]):
            first, second = float(theirs[row, feature]), float(ours[row, feature])
            marks = np.unique(thresholds[features == feature])
            between = marks[(marks >= min(first, second)) & (marks <= max(first, second))]
            for mark in between:
                yield (
                    f"Feature {feature} of {name} is {first:.9g} in the {source} and {second:.9g} in ONNX, "
                    f"on two sides of the threshold {mark:.9g}."
                )


def _error_components(scene: _Scene) -> Iterator[ErrorComponents]:
    """Split each floating output's error: the rounding of the input, of the source, the conversion, the provider.

    All but the first are on the rows as they are cast for ONNX.
    """
    rows = scene.pair.feeds.as_cast(scene.tensors)
    wide = {n: t.astype(np.float64) if t.dtype.kind == "f" else t for n, t in rows.items()}
    exact_source = scene.pair.source.in_double(wide) or {}
    for name, partner in scene.pair.partners.items():
        truth, found = np.asarray(scene.truth[name]), np.asarray(scene.found[name])
        if truth.dtype.kind != "f" or not truth.ndim or truth.size != found.size:
            continue
        shape = (len(truth), -1)
        answers = {
            "truth": truth,
            "cast": np.asarray(scene.cast[name]),
            "found": found,
            "source": exact_source.get(name),
            "graph": scene.double.get(partner),
        }
        flat = {
            key: np.asarray(array, dtype=np.float64).reshape(len(array), -1)[: scene.count]
            for key, array in answers.items()
            if array is not None and np.size(array) % (truth.size // shape[0]) == 0
        }
        yield ErrorComponents(
            output=name,
            total=_largest(flat, "found", "truth") or 0.0,
            input=_largest(flat, "truth", "cast"),
            source=_largest(flat, "cast", "source"),
            conversion=_largest(flat, "source", "graph"),
            provider=_largest(flat, "found", "graph"),
        )


def _largest(arrays: Mapping[str, NDArray[np.float64]], first: str, second: str) -> float | None:
    if first not in arrays or second not in arrays or arrays[first].shape != arrays[second].shape:
        return None
    differences = np.abs(arrays[first] - arrays[second])
    return float(differences[np.isfinite(differences)].max(initial=0.0))
