"""Run a source model and its ONNX model on the same rows, in chunks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxtool.errors import OnnxtoolError, SourceError
from onnxtool.models.onnx.artifact import OnnxModel, first_line, rows_proved_on
from onnxtool.models.onnx.providers import session_on
from onnxtool.models.onnx.settings import full_name
from onnxtool.models.onnx.width import widest_per_row
from onnxtool.models.rows.batches import WHOLE, Batching, row_dimension
from onnxtool.models.rows.domain import Domain
from onnxtool.models.rows.edges import NONFINITE, edge_rows, selects, sizing_inputs
from onnxtool.models.rows.inputs import Sizes, combinations, graph_domains, make_inputs, sensible_rows, sizes_of
from onnxtool.models.signature import Tensors, TensorSpec, dtype_name
from onnxtool.models.source import SourceModel
from onnxtool.reports import units
from onnxtool.reports.model import DimensionSizes, Inconsistency, OutputParity, Parity
from onnxtool.validators.numerics.comparison import WORST_ROWS, OutputComparison
from onnxtool.validators.numerics.tolerance import PRECISION, Limit, Tolerances, derive
from onnxtool.validators.parity.consistency import ask_again
from onnxtool.validators.parity.expected import Answers, Expected
from onnxtool.validators.parity.feeds import match_inputs
from onnxtool.validators.parity.input_rounding import RoundingCount, RowDifferences, row_differences
from onnxtool.validators.parity.lengths import workable_sizes
from onnxtool.validators.parity.ties import TieCount

FIRST_BATCHES = (1, 3, 17)
"""Batch sizes run before the large chunks: a batch dimension frozen at export shows at once."""

_CHUNK_ELEMENTS = 2**22
_WIDEST_ELEMENTS = 2**24
"""Of the largest tensor between the inputs and the outputs, 67 MB in float32, and several times that to compare."""
_MAX_CHUNK = 16384
_MOST_WHOLE = 1024
"""Rows that may be one example, where the source refuses the first few."""

_TENSOR_CORES = {"CUDAExecutionProvider", "TensorrtExecutionProvider"}

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that run at once.

    Attributes:
        start: The first row.
        stop: The row after the last.
        size: Rows that run, which are more where a fixed batch is padded.
        tensors: Inputs of the source.
    """

    start: int
    stop: int
    size: int
    tensors: Tensors


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows.

    Attributes:
        tensors: One array an input of the source.
        auxiliary: Columns that no model reads, [rows]: labels, groups.
        edges: Whether they are at the edges of what the source takes.
    """

    tensors: Tensors
    auxiliary: Tensors = field(default_factory=dict)
    edges: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that both models are run on.

    Attributes:
        tensors: One array an input of the source.
        origin: The data file, or how the rows were made.
        seed: Seed of made-up rows, None for the user's own.
        notes: Notes on columns that were ignored or rounded; later rows may add to them.
        auxiliary: Columns that no model reads, for the rows of `tensors`.
        later: Further rows, where a file is read block by block, or rows cannot be put side by side.
        edges: Made-up rows at the edges of what the source takes, with a tolerance of their own.
        nonfinite: Made-up rows with NaN or infinities that the source answers by chance. A difference there is
            reported, and is no drift.
        expected: The owner's own answers to all rows, which are the truth where there are some.
        contradictions: How the source contradicts itself on these rows, once that was tried: each conversion is
            compared on them.
    """

    tensors: Tensors
    origin: str
    seed: int | None = None
    notes: list[str] = field(default_factory=list)
    auxiliary: Tensors = field(default_factory=dict)
    later: Iterable[Block] | None = None
    edges: Tensors = field(default_factory=dict)
    nonfinite: Tensors = field(default_factory=dict)
    expected: Expected | None = None
    contradictions: list[Inconsistency | None] = field(default_factory=list)

    def blocks(self) -> Iterator[Block]:
        """All rows; those of a file that come later can be had once."""
        yield Block(self.tensors, self.auxiliary)
        yield from self.later or ()
        if self.edges:
            yield Block(self.edges, edges=True)


def made_up_rows(
    specs: Sequence[TensorSpec],
    source: SourceModel | None,
    model: OnnxModel,
    seed: int,
    shapes: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> Rows:
    """Make rows up from what the graph and the fitted source know of their inputs.

    Numbers are of the dtype in which rows come in production, or in which those came that the model was proved on.

    Args:
        specs: The source's inputs.
        source: The source, if there is one.
        model: The ONNX model.
        seed: Of the rows.
        shapes: Sizes of dynamic dimensions by name; there are rows of every combination.

    Raises:
        UsageError: a dimension is not the model's, or a size is below 1.
    """
    domains = known_domains(source, model)
    if source is not None:
        specs = row_specs(source, model)
    batching, rows = Batching.of(specs), sensible_rows(specs)
    chosen = {**workable_sizes(source, specs, domains, seed), **_fixed_sizes(specs, model)} if source else {}
    requested: list[Sizes] = combinations(shapes, specs, {}) or [tuple(sorted(chosen.items()))]
    filled = specs
    if batching.size is not None and batching.axes:  # as many batches of the fixed size
        rows = -(-rows // batching.size) * batching.size
        lengths = {name: rows * batching.each.get(name, 1) for name in batching.axes}
        filled = [replace(s, shape=(lengths.get(s.name, 0), *s.shape[1:])) if s.shape else s for s in specs]
    calls = rows if not batching.axes and any(s.shape for s in specs) else 1
    first, *others = (
        make_inputs(filled, rows if batching.axes else 1, seed + place, domains, dict(sizes))
        for sizes in requested
        for place in range(calls)
    )
    made = rows * len(requested) if batching.axes else 1 + len(others)
    listed = [f"{name} {', '.join(map(str, shapes[name]))}" for name in shapes]
    listed += [f"{dim} {size}" for dim, size in sizes_of(specs, first) if dim not in shapes]
    notes = [f"Rows were made up with {', '.join(listed)}. Other sizes: --shape."] if listed else []
    origin = f"{made} rows made up from the model's signature"
    generated = Rows(first, origin, seed, notes, later=[Block(other) for other in others])
    if source is None or batching.each or any(batching.axes.get(s.name) != 0 for s in specs):
        return generated
    return _with_edges(generated, source, specs, domains, graph=model.proto.graph, seed=seed)


def _fixed_sizes(specs: Sequence[TensorSpec], model: OnnxModel) -> dict[str, int]:
    """Sizes of the source's dynamic dimensions, besides the batch, that the ONNX model has fixed."""
    declared = {spec.name: spec.shape for spec in model.inputs}
    counting = row_dimension(specs)
    pairs = (pair for spec in specs for pair in zip(spec.shape, declared.get(spec.name, ()), strict=False))
    return {dim: size for dim, size in pairs if isinstance(dim, str) and dim != counting and isinstance(size, int)}


def known_domains(source: SourceModel | None, model: OnnxModel) -> dict[str, Domain]:
    """What the graph and the fitted source know of the values of the inputs."""
    return {**graph_domains(model.proto), **(source.domains() if source else {})}


def row_specs(source: SourceModel, model: OnnxModel) -> list[TensorSpec]:
    """The source's inputs in the dtypes in which rows come in production, or came when the model was proved."""
    proved = rows_proved_on(model.metadata)
    return [
        replace(spec, dtype=proved.get(spec.name, "float64")) if spec.dtype == "float64" else spec
        for spec in source.rows_as
    ]


def _with_edges(
    made: Rows,
    source: SourceModel,
    specs: Sequence[TensorSpec],
    domains: Mapping[str, Domain],
    *,
    graph: onnx.GraphProto,
    seed: int,
) -> Rows:
    """Ordinary rows with those at the edges that the source takes.

    Libraries of tables say what they do with a missing value, and a graph that compares or selects handles one on
    purpose. Others answer NaN and infinities by chance: TensorFlow's pooling leaves NaN out, PyTorch's does not.
    """
    original = source.model.proto.graph if isinstance(source.model, OnnxModel) else graph
    on_purpose = source.any_number or selects(graph) or selects(original)
    groups, by_chance, refused = [], [], []
    for name, tensors in edge_rows(specs, domains, made.tensors, seed, sizes=sizing_inputs(graph)):
        answered, finite = _answered(source, tensors, Batching.of(specs).size)
        taken = finite if on_purpose or name not in NONFINITE else np.zeros_like(finite)
        if name in NONFINITE and (answered & ~taken).any():
            by_chance.append({key: tensor[answered & ~taken] for key, tensor in tensors.items()})
        if taken.any():
            groups.append((name, {key: tensor[taken] for key, tensor in tensors.items()}))
        elif not answered.any() or name not in NONFINITE:
            refused.append(name)
    if groups:
        edges = {spec.name: np.concatenate([tensors[spec.name] for _, tensors in groups]) for spec in specs}
        count = len(next(iter(edges.values())))
        made.notes.append(f"Besides, {count} rows hold {', '.join(name for name, _ in groups)}.")
        made = replace(made, edges=edges)
    if by_chance:
        nonfinite = {spec.name: np.concatenate([tensors[spec.name] for tensors in by_chance]) for spec in specs}
        made = replace(made, nonfinite=nonfinite)
    if refused:
        made.notes.append(f"Not compared, since the source has no finite answer: {', '.join(refused)}.")
    return made


def _answered(source: SourceModel, rows: Tensors, size: int | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows the source answers, and which of them with finite numbers.

    Where batches have a fixed size, the last is filled with copies of its last row.
    """
    count = len(next(iter(rows.values())))
    if size is not None and size != count:
        places = np.minimum(np.arange(-(-count // size) * size), count - 1).reshape(-1, size)
        batches = ({name: tensor[some] for name, tensor in rows.items()} for some in places)
        parts = [_answered(source, batch, size) for batch in batches]
        return (
            np.concatenate([answered for answered, _ in parts])[:count],
            np.concatenate([finite for _, finite in parts])[:count],
        )
    try:
        with np.errstate(all="ignore"):
            answer = predict_source(source, rows)
    except OnnxtoolError:
        if count == 1 or size is not None:
            return np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        singly = ({name: tensor[row : row + 1] for name, tensor in rows.items()} for row in range(count))
        parts = [_answered(source, row, None) for row in singly]
        return (
            np.concatenate([answered for answered, _ in parts]),
            np.concatenate([finite for _, finite in parts]),
        )
    numbers = [output for output in map(np.asarray, answer.values()) if dtype_name(output) in PRECISION]
    if not numbers:  # a class that a NaN happens to get
        numbers = [tensor for tensor in rows.values() if tensor.dtype.kind == "f"]
    return np.ones(count, dtype=bool), _finite(numbers, count)


def _finite(arrays: Sequence[NDArray[Any]], count: int) -> NDArray[np.bool_]:
    """The rows that are finite in all arrays; where an array has no such rows, all are as it is."""
    found = np.ones(count, dtype=bool)
    for array in arrays:
        finite = np.isfinite(array.astype(np.float64))
        found &= finite.reshape(count, -1).all(axis=1) if array.ndim and len(array) == count else finite.all()
    return found


class Pair:
    """A source model and its ONNX model, run on the same rows.

    Args:
        source: The reference.
        model: The ONNX model.
        provider: Execution provider that runs it: `cpu`, `cuda` or a full name.
        options: Of its session, as `settings` has them.
        accept_rounding: Whether the source gets the rows as the ONNX model's signature forces them to be cast, so
            that what the cast costs is no drift. Else it gets them as they came.

    Attributes:
        feeds: From the source's tensors to the ONNX model's.
        partners: The source's outputs to those of the ONNX model; known after the first run.
        notes: Notes on how inputs and outputs are matched, and where nodes run.
        source_s: Seconds spent in the source.
        onnx_s: Seconds spent in ONNX Runtime.

    Raises:
        DataError: the two models take different inputs.
        ModelError: ONNX Runtime refuses the model.
        UsageError: the provider cannot be used here.
    """

    def __init__(
        self,
        source: SourceModel,
        model: OnnxModel,
        provider: str = "cpu",
        options: Mapping[str, str] = MappingProxyType({}),
        *,
        accept_rounding: bool = False,
    ) -> None:
        self.source, self.model, self.accept_rounding = source, model, accept_rounding
        self.notes: list[str] = []
        self.feeds = match_inputs(source.inputs, model.inputs, self.notes)
        self.batching = Batching.of(source.inputs).within(
            {name: feed.spec.shape for feed in self.feeds.feeds for name in feed.columns}
        )
        self.provider = full_name(provider)
        self.options = dict(options)
        self._session, others = session_on(model, self.provider, options)
        self.notes += others
        counting = row_dimension(model.inputs)
        self._row_axes = {
            spec.name: spec.shape.index(counting)
            for spec in model.outputs
            if counting is not None and counting in spec.shape
        }
        self.partners: dict[str, str] = {}
        self.source_s = self.onnx_s = 0.0
        self._large: dict[tuple[object, ...], int] = {}

    def for_rows(self, rows: Rows) -> Pair:
        """The same pair, which runs the user's rows at once where the source refuses the first few.

        Their first dimension then counts no rows: a vector from which a mask of ten constants selects has ten
        elements, though its size is declared dynamic.
        """
        count = self.batching.count(rows.tensors)
        users = rows.seed is None and rows.later is None and not self.source.any_number
        if not users or self.batching.size is not None or not 1 < count <= _MOST_WHOLE:
            return self
        for batch in islice(self.batches(rows.tensors, small_first=True), len(FIRST_BATCHES)):
            try:
                predict_source(self.source, batch.tensors)
            except OnnxtoolError:
                self.batching = WHOLE
                few = units.plural(batch.size, "row")
                self.notes.append(
                    f"The source refuses a batch of {few}, so all {count} rows ran at once; no other number was "
                    "compared."
                )
                break
        return self

    def run(self, tensors: Tensors) -> tuple[Tensors, Tensors]:
        """Outputs of both for rows as they came; the ONNX model's under the source's names, as far as it has them.

        Raises:
            ModelError: ONNX Runtime fails on the batch.
            SourceError: the source model does.
        """
        truth = self.run_source(tensors)
        found = self.run_onnx(tensors)
        return truth, self.renamed(truth, found)

    def run_source(self, batch: Tensors) -> Tensors:
        """The truth: the source's outputs for rows in the dtype in which they came.

        Raises:
            SourceError: it fails.
        """
        rows = self.feeds.as_cast(batch) if self.accept_rounding else batch
        began = time.perf_counter()
        truth = predict_source(self.source, rows)
        self.source_s += time.perf_counter() - began
        return truth

    def run_onnx(self, batch: Tensors) -> Tensors:
        """The ONNX model's outputs for rows that are cast as its signature says, under its own names.

        Raises:
            ModelError: ONNX Runtime fails.
        """
        began = time.perf_counter()
        found = self.model.predict(self._session, self.feeds(batch))
        self.onnx_s += time.perf_counter() - began
        return found

    def renamed(self, truth: Tensors, found: Tensors) -> Tensors:
        """The ONNX model's outputs under the source's names, as far as it has them."""
        if not self.partners:
            self.partners = match_outputs(truth, found, self.notes)
        return {name: found[partner] for name, partner in self.partners.items()}

    def batches(self, tensors: Tensors, *, small_first: bool = False) -> Iterator[Batch]:
        """All rows in batches; a fixed batch is padded with copies of its last row.

        Args:
            tensors: Inputs of the source.
            small_first: Whether batches of 1, 3 and 17 rows come first.
        """
        total, fixed = self.batching.count(tensors), self.batching.size
        for start, stop in chunks(total, fixed or self._rows_at_a_time(tensors, total), fixed, small_first):
            size = fixed or stop - start
            yield Batch(start, stop, size, self.batching.rows(tensors, start, stop, size))

    def _rows_at_a_time(self, tensors: Tensors, total: int) -> int:
        """As many rows as inputs and whatever lies between them and the outputs have room for."""
        few = min(total, FIRST_BATCHES[-1])
        feeds = self.feeds(self.batching.rows(tensors, 0, few, few))
        shapes = {name: array.shape for name, array in feeds.items()}
        key = (few, *shapes.items())
        if key not in self._large:
            given = sum(array.size for array in feeds.values()) // max(few, 1)
            between = widest_per_row(self.model.proto, shapes, max(few, 1))
            room = min(_CHUNK_ELEMENTS // max(given, 1), _WIDEST_ELEMENTS // between)
            self._large[key] = int(np.clip(room, FIRST_BATCHES[-1], _MAX_CHUNK))
        return self._large[key]

    def cut(self, outputs: Tensors, batch: Batch) -> Tensors:
        """Outputs with rows along the first axis and without padding; what does not follow the rows is one row."""
        found = {}
        for name, output in outputs.items():
            axis = self._row_axes.get(self.partners.get(name, name), 0)
            array = np.moveaxis(np.asarray(output), axis, 0) if axis < np.ndim(output) else np.asarray(output)
            follows = array.ndim and len(array) == batch.size
            found[name] = array[: batch.stop - batch.start] if follows else array[None]
        return found

    def tolerances(self, rows: Tensors, outputs: Iterable[str], rtol: Limit, atol: Limit) -> Tolerances:
        """The tolerances of the outputs; known after the first run.

        Raises:
            UsageError: the user gave one for an output that there is not.
        """
        given = Tolerances(rtol, atol)
        given.check(list(outputs))
        if given.complete(outputs):
            return given
        feeds = self.feeds(rows)
        derived, reason = derive(self.model, feeds, tensor_cores=self.provider in _TENSOR_CORES)
        by_name = {name: derived[partner] for name, partner in self.partners.items() if partner in derived}
        return Tolerances(rtol, atol, by_name, reason)


def check_parity(
    source: SourceModel,
    model: OnnxModel,
    rows: Rows,
    *,
    rtol: Limit = None,
    atol: Limit = None,
    provider: str = "cpu",
    options: Mapping[str, str] = MappingProxyType({}),
    accept_rounding: bool = False,
    accept_ties: bool = False,
    on_progress: Progress | None = None,
    worst: dict[int, Tensors] | None = None,
    on_outputs: Callable[[Tensors, Tensors, Tensors], None] | None = None,
) -> Parity:
    """Compare every output of every row, in memory that does not grow with their number.

    Args:
        source: The reference.
        model: The ONNX model.
        rows: The rows to compare.
        rtol: Relative tolerance, for all outputs or by name; None derives it, see `validators.tolerance`.
        atol: Absolute tolerance, likewise.
        provider: Execution provider that runs the ONNX model.
        options: Of its session, as `settings` has them.
        accept_rounding: Whether what the cast of the rows to the ONNX model's inputs costs is no drift; it is
            counted all the same.
        accept_ties: Whether another right answer by the source's own definition is no drift; it is counted.
        on_progress: Called with the rows done and the rows in all, 0 where that is not known.
        worst: Filled with the inputs of the rows that differ the most, by their position, the worst first.
        on_outputs: Called with each chunk's outputs of the source and of the ONNX model, under the same names,
            and with its columns that no model reads.

    Raises:
        DataError: the two models take different inputs.
        ModelError: ONNX Runtime refuses the model or fails on a batch.
        SourceError: the source model fails on a batch.
        UsageError: the provider cannot be used here, or a tolerance is for an output that there is not.
    """
    pair = Pair(source, model, provider, options, accept_rounding=accept_rounding).for_rows(rows)
    rounding, ties = RoundingCount(accept_rounding), TieCount(source, accept_ties)
    blocks = [tensors for tensors in (rows.tensors, rows.edges) if tensors]
    total = sum(map(pair.batching.count, blocks)) if rows.later is None else 0
    comparisons: dict[str, OutputComparison] = {}
    of_edges: dict[str, OutputComparison] = {}
    ordinary = Tolerances()
    answers: Answers | None = None
    batches: set[int] = set()
    sizes: dict[str, set[int]] = {}
    before = done = 0
    for block in rows.blocks():
        compared = of_edges if block.edges else comparisons
        for batch in pair.batches(block.tensors, small_first=before == 0):
            start, stop = batch.start, batch.stop
            truth, found = pair.run(batch.tensors)
            if start == 0:
                for name, size in sizes_of(model.inputs, pair.feeds(batch.tensors)):
                    sizes.setdefault(name, set()).add(size)
            if not compared:
                tolerances = pair.tolerances(block.tensors, truth, rtol, atol)
                ordinary = ordinary if block.edges else tolerances
                compared |= {
                    name: OutputComparison(name, source.roles.get(name, "values"), tolerances, before)
                    for name in truth
                }
            truth, found = pair.cut(truth, batch), pair.cut(found, batch)
            _count_rounding(rounding, pair, batch, (truth, found), tolerances)
            if not rows.expected:
                found = ties.settle(batch.tensors, truth, found, tolerances)
            else:
                answers = answers or Answers(rows.expected, source, truth, tolerances)
                truth = answers.instead_of(truth, before + start)
            for name, comparison in compared.items():
                if name in found:
                    comparison.update(truth[name], found[name])
                else:
                    comparison.fail("The ONNX model has no such output.")
            if on_outputs and not block.edges:
                on_outputs(truth, found, {name: column[start:stop] for name, column in block.auxiliary.items()})
            if worst is not None:
                both = [*comparisons.values(), *of_edges.values()]
                _keep_worst(worst, both, pair.batching, batch.tensors, before + start)
            batches.add(batch.size)
            done = before + stop
            if on_progress:
                on_progress(done, total)
        before = done
    results = [comparison.result() for comparison in comparisons.values()]
    if of_edges:
        results = [_merged(result, of_edges[result.name].result()) for result in results]
    contradiction = _contradiction(pair, rows, ordinary)
    if answers:
        results = answers.finish(results, done, rows.origin)
    usual = sensible_rows(source.inputs)
    return Parity(
        rows=done,
        usual_rows=usual if done < usual else None,
        batches=sorted(batches),
        sizes=[DimensionSizes(dimension=name, compared=sorted(found)) for name, found in sizes.items()],
        data=rows.origin,
        expected=rows.expected.origin if rows.expected else None,
        seed=rows.seed,
        provider=pair.provider,
        options=pair.options,
        outputs=results,
        notes=[
            *rows.notes,
            *source.notes,
            *pair.notes,
            *source.effects.values(),
            *(answers.notes if answers else []),
            *_compare_nonfinite(pair, rows.nonfinite, ordinary),
        ],
        input_rounding=rounding.record(),
        source_s=pair.source_s,
        onnx_s=pair.onnx_s,
        inconsistency=contradiction,
        ties=ties.record(),
        passed=bool(results)
        and all(result.passed for result in results)
        and (contradiction is None or contradiction.kind == "batch-dependent"),
    )


def _contradiction(pair: Pair, rows: Rows, tolerances: Tolerances) -> Inconsistency | None:
    """How the source contradicts itself, which it is asked once for all conversions that are compared on the rows."""
    if not rows.contradictions:
        again = None if rows.expected else ask_again(pair.source, pair.batching, rows.tensors, tolerances)
        rows.contradictions.append(again)
    return rows.contradictions[0]


def _compare_nonfinite(pair: Pair, rows: Tensors, tolerances: Tolerances) -> list[str]:
    """Report where the two models answer rows with NaN or infinities differently, which is no part of the verdict."""
    off = total = 0
    for batch in pair.batches(rows) if rows else ():
        count = batch.stop - batch.start
        total += count
        try:
            with np.errstate(all="ignore"):
                truth, found = (pair.cut(outputs, batch) for outputs in pair.run(batch.tensors))
        except OnnxtoolError:
            off += count
            continue
        off += int(row_differences(truth, found, pair.source.roles, tolerances, count).off.sum())
    if not off:
        return []
    return [
        f"With NaN or infinity in an input, the two models differ on {off} of {total} rows. Neither handles such "
        "values on purpose, so the verdict leaves them out. Refuse them before you call the model."
    ]


def _count_rounding(
    rounding: RoundingCount, pair: Pair, batch: Batch, answers: tuple[Tensors, Tensors], tolerances: Tolerances
) -> None:
    """Split the difference between the two models into the rounding of the input and the conversion.

    That takes another run of the source. It is done where a row is off, or where rounding is accepted and must be
    shown.

    Args:
        rounding: The counts so far.
        pair: The models.
        batch: The rows.
        answers: The outputs of the source and of the ONNX model, without padding.
        tolerances: The tolerances of the outputs.
    """
    changed = pair.feeds.changed(batch.tensors)
    if not changed:
        return
    rounding.inputs |= changed
    truth, found = answers
    rows, roles = batch.stop - batch.start, pair.source.roles
    conversion = row_differences(truth, found, roles, tolerances, rows)
    if not pair.accept_rounding and not conversion.off.any():
        return
    other_rows = batch.tensors if pair.accept_rounding else pair.feeds.as_cast(batch.tensors)
    try:
        other = pair.cut(predict_source(pair.source, other_rows), batch)
    except SourceError:  # float32 may hold infinity where the rows hold a large number
        rounding.update(RowDifferences(np.ones(rows, dtype=bool), None, 0.0), conversion)
        return
    moved = row_differences(truth, other, roles, tolerances, rows)
    if not pair.accept_rounding:
        conversion = row_differences(other, found, roles, tolerances, rows)
    rounding.update(moved, conversion)


def _merged(result: OutputParity, edges: OutputParity) -> OutputParity:
    """The result for an output with that for rows at the edges, whose sizes say nothing of ordinary rows.

    The mean of their differences is no evidence of anything systematic: it is that of the largest few.
    """
    off = edges.problem is not None or edges.mismatched_elements > 0
    sums = ("rows", "elements", "mismatched_elements", "mismatched_rows", "mismatched_nonfinite")
    update: dict[str, Any] = {name: getattr(result, name) + getattr(edges, name) for name in sums}
    if result.label_flips is not None and edges.label_flips is not None:
        update["label_flips"] = result.label_flips + edges.label_flips
    if off:
        largest = [found for found in (result.max_absolute, edges.max_absolute) if found is not None]
        update |= {
            "max_absolute": max(largest, default=None),
            "worst": [*edges.worst, *result.worst][:WORST_ROWS],
            "problem": result.problem or edges.problem,
        }
    return result.model_copy(update=update | {"passed": result.passed and not off})


def _keep_worst(
    worst: dict[int, Tensors],
    comparisons: Iterable[OutputComparison],
    batching: Batching,
    batch: Tensors,
    first: int,
) -> None:
    """Keep the inputs of the rows that are among the worst so far; the batch starts with row `first`."""
    ranked = sorted(entry for comparison in comparisons for entry in comparison.worst_rows())
    rows = list(dict.fromkeys(row for _, row in reversed(ranked)))
    new = [row for row in rows if row >= first]
    worst |= {row: batching.rows(batch, row - first, row - first + 1) for row in new}
    kept = [(row, worst[row]) for row in rows]
    worst.clear()
    worst.update(kept)


def match_outputs(source: Mapping[str, object], onnx: Mapping[str, object], notes: list[str]) -> dict[str, str]:
    """Source output name to ONNX output name: by name, else by position where there are as many."""
    if set(source) <= set(onnx):
        return {name: name for name in source}
    if len(source) == len(onnx):
        pairs = dict(zip(source, onnx, strict=True))
        notes.append(
            "Outputs have other names in ONNX, and were matched by position: "
            + ", ".join(f"{first} -> {second}" for first, second in pairs.items())
        )
        return pairs
    return {name: name for name in source if name in onnx}


def chunks(total: int, large: int, fixed: int | None, small_first: bool) -> Iterator[tuple[int, int]]:
    """First row and the one after the last of each batch.

    Args:
        total: How many rows there are.
        large: How many of them run at a time.
        fixed: The size of a batch, if there is but one.
        small_first: Whether small batches come first.
    """
    if fixed:
        yield from ((start, min(start + fixed, total)) for start in range(0, total, fixed))
        return
    start = 0
    for size in FIRST_BATCHES if small_first else ():
        if start < total:
            stop = min(start + size, total)
            yield start, stop
            start = stop
    while start < total:
        stop = min(start + large, total)
        yield start, stop
        start = stop


def predict_source(source: SourceModel, batch: Tensors) -> Tensors:
    """The source's outputs, whatever it may raise turned into our error.

    Raises:
        SourceError: it fails.
    """
    try:
        return source.answer(batch)
    except OnnxtoolError:
        raise
    except Exception as error:  # any framework may raise anything
        shapes = ", ".join(f"{name}{list(tensor.shape)}" for name, tensor in batch.items())
        raise SourceError(f"The source model fails on {shapes}: {first_line(error)}") from error
