"""The report: one versioned, typed record of what was converted, compared and measured.

Every output of onnxtool is a rendering of it. Times are in seconds (`_s`), sizes in bytes, sequences in the
order of the model. A float that is not finite is written to JSON as the string "NaN", "Infinity" or
"-Infinity", since JSON has no number for it.
"""

from __future__ import annotations

import datetime
import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from onnxtool._version import __version__
from onnxtool.errors import UsageError
from onnxtool.reports import units

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION: Literal["2.0"] = "2.0"

Count = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """Base class of all records. Unknown fields are errors, so that a misspelt field cannot go unnoticed."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings", protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _encodable(cls, value: Any) -> Any:
        """A file name may hold bytes that are no text: Python keeps them as lone surrogates, UTF-8 cannot."""
        return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The fields that say something, long ones by their length: a record at the end of a cell is a line."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value == field.get_default(call_default_factory=True, validated_data={}):
                continue
            if isinstance(value, Record):
                yield name, _Shown(f"{type(value).__name__}(…)")
            elif isinstance(value, list | dict) and len(value) > _SHOWN:
                yield name, _Shown(f"<{len(value)} entries>")
            elif isinstance(value, list) and any(isinstance(entry, Record) for entry in value):
                yield name, _Shown(f"<{len(value)} {type(value[0]).__name__}>")
            else:
                yield name, value

    def __dir__(self) -> list[str]:
        """What a reader of reports looks for; pydantic's own methods work, and are not listed."""
        own = {name for kind in type(self).__mro__ if issubclass(kind, Record) for name in vars(kind)}
        return sorted({*type(self).model_fields, *(name for name in own if not name.startswith(("_", "model_")))})


_SHOWN = 4
"""A list longer than this is shown by its length."""


class _Shown(str):
    """Text that stands in a `repr` as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _renderer(name: str) -> Any:
    """A module that renders reports, found by its name: each of them imports this one."""
    return importlib.import_module(f"onnxtool.reports.{name}")


# -- Environment --------------------------------------------------------------------------------------------


class Cpu(Record):
    """The processor. `usable` counts the cores that this process may run on."""

    name: str
    architecture: str
    physical_cores: Count | None
    logical_cores: Count | None
    usable_cores: Count


class Gpu(Record):
    """A graphics card, as its driver names it."""

    name: str
    driver: str
    memory_bytes: Count | None


class Environment(Record):
    """The machine and the software, as far as they affect results or times."""

    os: str
    python: str
    cpu: Cpu
    memory_bytes: Count
    gpus: list[Gpu] = []
    libraries: dict[str, str] = Field(default={}, description="Distribution name to version.")
    providers: list[str] = Field(default=[], description="Execution providers built into ONNX Runtime.")
    ci: bool = Field(default=False, description="Whether it ran in continuous integration.")


# -- Models -------------------------------------------------------------------------------------------------


class Tensor(Record):
    """An input or output. A string in the shape names a dynamic dimension."""

    name: str
    dtype: str
    shape: list[int | str]


class ModelSummary(Record):
    """The contents of an ONNX file."""

    path: str
    sha256: str
    size_bytes: Count = Field(description="The file and its external data.")
    ir_version: Count
    opsets: dict[str, int] = Field(description="Operator domain to version; the default one is 'ai.onnx'.")
    producer: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    operators: dict[str, int] = Field(description="Operator to the number of its nodes, subgraphs included.")
    parameters: Count = Field(description="Number of elements in all initializers.")
    metadata: dict[str, str] = {}


class SavedBy(Record):
    """A release of a library that saved the source's file."""

    library: str
    version: str
    running: str = Field(description="The release that read it.")
    promise: str = Field(description="The library's promise for files of other releases.")
    same_meaning: bool = Field(description="Whether by that promise the file means the same to both releases.")


class SourceSummary(Record):
    """The source model."""

    framework: str
    framework_version: str
    kind: str = Field(description="Class of the model.")
    path: str | None = None
    sha256: str | None = None
    saved_by: list[SavedBy] = Field(
        default=[], description="The releases that saved its file, where the file names them."
    )


class InputDtype(Record):
    """The dtype of an input, and why it has it."""

    name: str
    dtype: str
    rows: str = Field(description="Dtype in which the rows came.")
    requested: Literal["auto", "float32", "float64", "given"] = Field(
        description="The user's request; given where --input or the model declares the dtype."
    )
    why: str


class ConversionRecord(Record):
    """The conversion: its options and its result."""

    opset: Count
    target: str
    optimize: str
    convert_s: float = Field(description="Time in the framework's converter.")
    finish_s: float = Field(description="Time in onnxtool's own passes, checks and writing.")
    choices: list[str] = Field(default=[], description="Which options were taken and why.")
    input_dtypes: list[InputDtype] = Field(default=[], description="How the dtypes of number inputs were chosen.")
    candidates: list[Candidate] = Field(
        default=[], description="Graphs that were tried, the converted one first; exactly one is kept."
    )
    lowering: Lowering | None = Field(default=None, description="How its precision was lowered, if it was.")


# -- Parity -------------------------------------------------------------------------------------------------


class Tolerance(Record):
    """An element passes when |onnx - source| <= atol + rtol * |source|."""

    rtol: float
    atol: float
    reason: str
    noise: float | None = Field(
        default=None, description="Mean difference that rounding alone makes, if measured."
    )
    magnitude: float | None = Field(default=None, description="Mean |value| where the noise was measured.")
    half: Literal["float16", "bfloat16"] | None = Field(
        default=None,
        description="Half precision that the ONNX graph computes in, where the output is of a finer one.",
    )


class Bin(Record):
    """A bin of a histogram: low <= value < high."""

    low: float
    high: float
    count: Count


class Difference(Record):
    """One element, shown because it is among the worst of its output."""

    row: Count
    index: list[int] = Field(description="Position within the row.")
    source: float | int | str | bool
    onnx: float | int | str | bool
    absolute: float | None = None
    relative: float | None = None
    ulps: float | None = None


class OutputParity(Record):
    """One output of the ONNX model compared with the source's, over all rows."""

    name: str
    role: Literal["values", "label", "probabilities"]
    truth: Literal["source", "expected"] = Field(
        default="source", description="What it was compared with: the source, or the owner's saved answers."
    )
    source_dtype: str
    onnx_dtype: str
    rows: Count
    elements: Count
    tolerance: Tolerance
    max_absolute: float | None = None
    mean_absolute: float | None = None
    p99_absolute: float | None = Field(
        default=None,
        description="Upper edge of the histogram bin that holds the quantile: at most 0.8 % above it.",
    )
    max_relative: float | None = Field(
        default=None, description="Over the elements with |source| >= relative_floor only."
    )
    relative_floor: float | None = None
    below_floor: Count = Field(default=0, description="Elements nearer to zero than relative_floor.")
    max_ulps: float | None = Field(default=None, description="In units in the last place of the coarser dtype.")
    noise_ratio: float | None = Field(
        default=None,
        description="Mean difference over what rounding makes. Above 2 it is systematic, and the output fails.",
    )
    mismatched_nonfinite: Count = Field(
        default=0, description="NaN or infinity on one side only, or of another sign."
    )
    mismatched_elements: Count = 0
    mismatched_rows: Count = 0
    label_flips: Count | None = Field(
        default=None, description="Rows whose label, or whose most probable class, differs."
    )
    worst: list[Difference] = []
    histogram: list[Bin] = Field(default=[], description="Absolute differences above zero, a bin a factor of two.")
    zero_differences: Count = Field(default=0, description="Elements that are equal bit for bit or in value.")
    problem: str | None = Field(default=None, description="Why nothing could be compared: shapes, missing output.")
    passed: bool

    @field_validator("worst")
    @classmethod
    def _numbers(cls, worst: list[Difference], info: ValidationInfo) -> list[Difference]:
        """A NaN that JSON holds as a string is a number again, unless the output is one of strings."""
        if "string" in (info.data.get("source_dtype"), info.data.get("onnx_dtype")):
            return worst
        names = {name: float(name) for name in ("NaN", "Infinity", "-Infinity")}
        return [
            entry.model_copy(
                update={
                    "source": names.get(str(entry.source), entry.source),
                    "onnx": names.get(str(entry.onnx), entry.onnx),
                }
            )
            for entry in worst
        ]


class Stage(Record):
    """A step of the source model, or a node of the graph, and the difference between the two models after it."""

    name: str
    kind: str = Field(description="Class of the source's layer or step, or the node's operator.")
    tensor: str | None = Field(description="The ONNX tensor that holds the same; None where none was found.")
    difference: float | None = Field(description="Largest difference, relative to the largest value of the row.")
    matched_by: Literal["name", "value"] | None = None


class ErrorComponents(Record):
    """The components of an output's error on the rows that were explained: largest absolute differences."""

    output: str
    total: float = Field(description="ONNX against the source.")
    source: float | None = Field(description="The source against itself in float64: its own rounding.")
    input: float | None = Field(
        default=None, description="The source on the rows against itself on the rows as they are cast for ONNX."
    )
    conversion: float | None = Field(description="The source in float64 against the graph in float64.")
    provider: float | None = Field(description="ONNX as it ran against the graph in float64.")


class Explanation(Record):
    """Where and why the two models diverge."""

    rows: list[Count] = Field(description="The rows that were looked at: the worst.")
    against: Literal["source", "float64"] = Field(
        description="What each ONNX tensor is compared with: the source's steps, or the graph in float64."
    )
    provider: str | None = Field(
        default=None,
        description="The provider that makes the difference: its tensors are compared with those of the CPU.",
    )
    stages: list[Stage] = []
    first_difference: int | None = Field(
        default=None, description="Position of the first stage that differs at all."
    )
    first_failure: int | None = Field(
        default=None, description="Position of the first stage that is out of tolerance."
    )
    cause: str
    details: list[str] = []
    error_components: list[ErrorComponents] = []


class InputRounding(Record):
    """What it costs that the ONNX model's signature makes a caller cast the rows.

    The source answers the rows as they came and, where answers differ, the rows after the cast too: what is between
    these two answers is rounding of the input, and what is between the second and ONNX is the conversion.
    """

    inputs: dict[str, str] = Field(description="Inputs of which the cast changes values: float64 to float32.")
    rows: Count = Field(description="Rows whose answer the cast alone moves out of tolerance.")
    label_flips: Count | None = Field(
        default=None, description="Labels, or likeliest classes, that the cast flips."
    )
    largest: float | None = Field(default=None, description="Largest difference that the cast makes.")
    conversion_rows: Count = Field(default=0, description="Rows that the conversion moves out of tolerance.")
    largest_conversion: float | None = Field(default=None, description="Largest difference that it makes in them.")
    accepted: bool = Field(default=False, description="Whether the user accepts it, so that it is no drift.")


class Ties(Record):
    """Rows that differ in nothing but a choice that the source's own definition leaves to chance.

    Equally far neighbours are such a choice: the source takes the one that its search comes to first.
    """

    rows: Count = Field(description="Rows whose answer by the ONNX model is another right one.")
    accepted: bool = Field(default=False, description="Whether the user accepts it, so that it is no drift.")


class Inconsistency(Record):
    """How the source contradicts itself on the same rows, so that a difference from it proves nothing."""

    kind: Literal["random", "stateful", "batch-dependent"] = Field(
        description="Whether its answer to a row depends on chance, on what it was asked before, or on the rows of "
        "the same batch. Only the last leaves a truth to compare with: that of the same batch."
    )
    rows: Count = Field(description="Rows that were asked twice.")
    mismatched_rows: Count
    layer: str | None = Field(default=None, description="The first layer whose output differs, where it is known.")


class SizeFailure(Record):
    """A size of a dimension at which the two models do not agree."""

    size: Count
    problem: str
    raised: bool = Field(description="Whether the ONNX model fails there, and gives no wrong answer.")


class DimensionSizes(Record):
    """The sizes of a dynamic dimension at which the two models were compared."""

    dimension: str
    compared: list[int] = Field(description="Sizes at which they agree.")
    refused: list[int] = Field(default=[], description="Sizes that the source refuses.")
    skipped: list[int] = Field(default=[], description="Sizes that were left out for their time.")
    failures: list[SizeFailure] = []
    low: Count | None = Field(default=None, description="The smallest size, if the ONNX model states one.")
    high: Count | None = Field(default=None, description="The largest size, if the ONNX model states one.")


class Parity(Record):
    """The verdict of `verify`."""

    rows: Count
    usual_rows: Count | None = Field(
        default=None, description="Rows that are made up for such inputs, where fewer were compared."
    )
    batches: list[int] = Field(description="Batch sizes that were run, each at least once.")
    sizes: list[DimensionSizes] = Field(
        default=[], description="Dynamic dimensions besides the batch, each at several sizes."
    )
    data: str = Field(description="The data file, or how the rows were made.")
    expected: str | None = Field(
        default=None, description="The file of answers that were the truth, where that was not the source."
    )
    seed: int | None
    provider: str
    options: dict[str, str] = Field(default={}, description="Options of the provider and of the session.")
    outputs: list[OutputParity]
    notes: list[str] = []
    source_s: float = Field(description="Time spent in the source model.")
    onnx_s: float = Field(description="Time spent in ONNX Runtime.")
    explanation: Explanation | None = None
    input_rounding: InputRounding | None = Field(
        default=None, description="Where the cast changes values; counted over the batches in which a row is off."
    )
    inconsistency: Inconsistency | None = None
    ties: Ties | None = None
    passed: bool

    @property
    def max_absolute(self) -> float | None:
        """The largest absolute difference of any output; None where no numbers were compared."""
        return max(
            (output.max_absolute for output in self.outputs if output.max_absolute is not None), default=None
        )

    @property
    def mismatched_rows(self) -> int:
        """Rows outside tolerance in the output where there are most."""
        return max((output.mismatched_rows for output in self.outputs), default=0)

    @property
    def label_flips(self) -> int | None:
        """Labels that flip in the output where most do; None where no output is a label or a probability."""
        return max((output.label_flips for output in self.outputs if output.label_flips is not None), default=None)

    def __getitem__(self, name: str) -> OutputParity:
        """An output by its name.

        Raises:
            UsageError: there is no such output; the message names those that there are.

        >>> report[0].parity["prediction"].passed
        True
        """
        output: OutputParity = _named(self.outputs, name, "output")
        return output

    def _ipython_key_completions_(self) -> list[str]:
        return [output.name for output in self.outputs]


class SearchCategory(Record):
    """One kind of rows that were tried."""

    name: str
    rows: Count
    mismatches: Count = Field(description="Rows out of tolerance.")
    worst: float | None = Field(description="Largest difference, in units of what is allowed; inf for a label.")
    ties: Count = Field(
        default=0, description="Labels that differ where the source is undecided to within tolerance."
    )
    both_refused: Count = Field(default=0, description="Rows that both models refuse, which is agreement.")
    findings: list[str] = []


class Search(Record):
    """A search for rows on which the two models diverge."""

    budget: str
    seed: int
    rows: Count = Field(description="Rows that were tried.")
    seconds: float
    categories: list[SearchCategory]
    saved: str | None = Field(default=None, description="File of the worst rows, for --data.")
    saved_rows: Count = 0
    passed: bool


class Metric(Record):
    """One measure of quality on labelled rows, for both models."""

    name: str
    source: float
    onnx: float
    difference: float
    low: float | None = Field(default=None, description="Lower end of the 95 % interval of the difference.")
    high: float | None = Field(default=None, description="Upper end of the 95 % interval of the difference.")
    method: str | None = Field(default=None, description="How the interval was found.")
    allowed: float | None = None
    passed: bool


class Flips(Record):
    """Rows for which the two models name different classes, with the exact 95 % interval of their share."""

    count: Count
    rows: Count
    low: float
    high: float


class McNemar(Record):
    """McNemar's exact test of whether the two classifiers err equally often."""

    source_only: Count = Field(description="Rows that only the source gets right.")
    onnx_only: Count = Field(description="Rows that only the ONNX model gets right.")
    p_value: float


class GroupQuality(Record):
    """Quality within one group of the rows."""

    group: str
    rows: Count
    metrics: list[Metric]
    passed: bool


class LabelDrift(Record):
    """Quality of both models on labelled rows."""

    labels: str
    task: Literal["classification", "regression"]
    rows: Count
    metrics: list[Metric]
    flips: Flips | None = None
    mcnemar: McNemar | None = None
    grouped_by: str | None = Field(default=None, description="Column whose values are the groups.")
    groups: list[GroupQuality] = []
    notes: list[str] = []
    passed: bool


# -- Speed --------------------------------------------------------------------------------------------------


class Percentile(Record):
    """A percentile of the latency, or the reason why the samples do not support it."""

    q: float
    value_s: float | None
    low_s: float | None = Field(default=None, description="Lower end of the confidence interval.")
    high_s: float | None = Field(default=None, description="Upper end of the confidence interval.")
    reason: str | None = None


class Change(Record):
    """A lasting change of the latency within the runs: throttling, drift, or another load of the machine."""

    at: float = Field(description="Share of the runs before it.")
    before_s: float = Field(description="Median before it.")
    after_s: float = Field(description="Median after it.")
    p_value: float


class Box(Record):
    """Tukey's box of the latency: the quartiles, and the samples furthest out within 1.5 times their distance."""

    q1_s: float
    q3_s: float
    low_s: float
    high_s: float
    outliers: Count = Field(description="Samples further out.")
    beyond_std: Count = Field(description="Samples more than a standard deviation from the mean.")


class BatchSpread(Record):
    """How the latency differs between the batches that were run in turn: quantiles of their medians."""

    batches: Count = Field(description="That were run at least once.")
    low_s: float = Field(description="5th percentile.")
    high_s: float = Field(description="95th percentile.")
    p_value: float | None = Field(
        default=None,
        description="Probability of such a difference between equal batches; None where they ran too few times.",
    )


class Latency(Record):
    """Time of one query: a run of the model, and in the server scenario its wait before it."""

    samples: Count
    mean_s: float
    std_s: float
    min_s: float
    max_s: float
    confidence: float = Field(description="Confidence of the percentiles' intervals.")
    percentiles: list[Percentile]
    histogram: list[Bin] = []
    series_s: list[float] = Field(default=[], description="Medians of consecutive runs, for the plot over time.")
    box: Box | None = None
    change: Change | None = Field(default=None, description="The change, if one was found.")
    between: BatchSpread | None = Field(
        default=None, description="The difference between batches, if one caller ran several."
    )

    def percentile(self, q: float) -> float | None:
        """A percentile in seconds, as `percentile(0.99)`; None where the samples do not support it."""
        return next((entry.value_s for entry in self.percentiles if entry.q == q), None)

    @property
    def p50(self) -> float | None:
        """The median in seconds."""
        return self.percentile(0.5)

    @property
    def p90(self) -> float | None:
        """The 90th percentile in seconds."""
        return self.percentile(0.9)

    @property
    def p99(self) -> float | None:
        """The 99th percentile in seconds; None where there are too few samples."""
        return self.percentile(0.99)


class Placement(Record):
    """The nodes and kernels that ran on a provider."""

    provider: str
    nodes: Count = Field(description="Nodes of the model, as ONNX Runtime assigned them.")
    operators: dict[str, int] = {}
    kernels: Count | None = Field(default=None, description="Kernels that ran in a short profile, after fusion.")
    time_share: float | None = Field(
        default=None, description="Share of the time that all kernels took in the profile, measured on the host."
    )


Scenario: TypeAlias = Literal["single-stream", "multi-stream", "server", "offline"]
"""How queries come, after MLPerf's loadgen."""


class LatencyBound(Record):
    """Whether a percentile of a cell's latency is within a bound: an exact binomial test of the queries above it."""

    q: float = Field(description="The percentile, as 0.99.")
    bound_s: float
    outcome: Literal["within", "above", "undecided"] = "undecided"
    samples: Count = 0
    above: Count = Field(default=0, description="Queries that took longer than the bound.")
    p_value: float | None = Field(
        default=None,
        description="Probability of as many queries above the bound, or as few, were it the other way.",
    )
    error: float | None = Field(default=None, description="The probability from which it is decided.")
    looks: Count = Field(default=0, description="How often the queries were tested.")
    measured_s: float = 0.0
    needed_s: float | None = Field(
        default=None,
        description="Time of measuring that would decide, if the share above stays the same.",
    )


class Contention(Record):
    """What the measured process got of the processors, and what others took. None where the system does not count."""

    cpu_s: float = Field(description="Time that its threads ran.")
    waited_s: float | None = Field(default=None, description="Time that its threads were ready and had no core.")
    voluntary_switches: Count = Field(default=0, description="Context switches where a thread had to wait.")
    involuntary_switches: Count = Field(default=0, description="Context switches where a core was taken from it.")
    pressure: float | None = Field(
        default=None, description="Share of the time in which some process of the machine waited for a core."
    )
    frequency_hz: float | None = Field(default=None, description="Of the processors, on average, at the end.")
    frequency_before_hz: float | None = Field(default=None, description="The same at the start.")

    @property
    def waited_share(self) -> float:
        """Share of the time that its threads were ready to run in which they had no core."""
        ready_s = self.cpu_s + (self.waited_s or 0.0)
        return (self.waited_s or 0.0) / ready_s if ready_s else 0.0


class Cell(Record):
    """One measurement: a model on a provider with a batch size and a number of threads.

    Where a cell could not be measured as requested, `status` and `reason` say so. It is never measured with other
    settings instead.
    """

    provider: str = Field(description="Execution provider, or 'source' for the source model's own framework.")
    batch: Count
    threads: Count | None = Field(description="Threads within an operator; None leaves it to the runtime.")
    concurrency: Count = Field(default=1, description="Threads that call the one session.")
    scenario: Scenario = "single-stream"
    rate: float | None = Field(default=None, description="Queries a second that arrive in the server scenario.")
    io_binding: bool = Field(default=False, description="Whether inputs and outputs stay on the device.")
    dims: dict[str, int] = Field(default={}, description="Sizes of the dynamic dimensions other than the batch.")
    shapes: dict[str, list[Count]] = Field(default={}, description="Shape of each input, as it was run.")
    batches: Count = Field(default=1, description="Number of different batches, which were run in turn.")
    options: dict[str, str] = Field(default={}, description="Options of the provider and of the session.")
    status: Literal["measured", "unavailable", "failed"]
    reason: str | None = None
    session_s: float | None = Field(default=None, description="Loading the model, up to the first run.")
    build_s: float | None = Field(
        default=None, description="Building the provider's engine, which later sessions take from a cache."
    )
    first_run_s: float | None = None
    warmup_runs: Count = 0
    warmup_settled: bool = Field(default=True, description="Whether the latency was steady when it ended.")
    latency: Latency | None = None
    rows_per_s: float | None = None
    unanswered: Count = Field(default=0, description="Queries that were not answered by the end.")
    peak_memory_bytes: Count | None = Field(default=None, description="Peak resident memory of the worker.")
    model_memory_bytes: Count | None = Field(
        default=None, description="Peak less what the worker used before loading."
    )
    providers: list[str] = Field(default=[], description="Providers of the session, in order of priority.")
    placement: list[Placement] = Field(default=[], description="Nodes by the provider that really ran them.")
    timer_resolution_s: float | None = None
    timer_overhead_s: float | None = None
    machine: Count | None = Field(default=None, description="Index of the machine, where the sweep was spread.")
    bounds: list[LatencyBound] = []
    contention: Contention | None = None
    warnings: list[str] = []


class Bench(Record):
    """All cells of one model."""

    data: str
    seed: int | None
    duration_s: float
    rows_sha256: str | None = Field(default=None, description="SHA-256 of the rows that were run.")
    latency_bound_s: float | None = Field(default=None, description="Upper bound of p99.")
    machines: list[Environment] = Field(
        default=[], description="The machines, where the sweep was spread over several."
    )
    unfinished: Count = Field(default=0, description="Cells of the sweep that are not measured yet.")
    cells: list[Cell]


class Comparison(Record):
    """The ratio of a model's latency to another's, or to its own in an earlier run.

    The model is slower when the whole interval of the ratio lies above 1 + effect, and is not when it lies below.
    """

    against: str = Field(description="The other model, or the saved report.")
    method: Literal["paired", "baseline"] = Field(
        description="Both alternately in one process, or two runs at different times."
    )
    provider: str
    batch: Count
    threads: Count | None
    dims: dict[str, int] = Field(default={}, description="Sizes of the dynamic dimensions other than the batch.")
    effect: float = Field(description="The smallest slowdown that matters: 0.05 is 5 %.")
    outcome: Literal["pass", "fail", "undecided"]
    reason: str | None = Field(default=None, description="Why it was not decided, or could not be measured.")
    ratio: float | None = Field(default=None, description="Latency of this model over the other's.")
    low: float | None = Field(default=None, description="Lower end of the ratio's interval.")
    high: float | None = Field(default=None, description="Upper end of the ratio's interval.")
    confidence: float | None = Field(default=None, description="Confidence of the interval.")
    median_s: float | None = None
    against_median_s: float | None = None
    quads: Count = Field(default=0, description="Groups of four blocks, two of each model.")
    runs_per_block: Count = 0
    looks: Count = Field(default=0, description="How often the data were evaluated.")
    needed_s: float | None = Field(default=None, description="Time of measuring that would decide.")
    series: list[float] = Field(default=[], description="The ratio over time, medians of consecutive quads.")


class Candidate(Record):
    """A graph of the model, and what was measured of it.

    A candidate is accepted when it agrees with the source and is not slower than the graph as it was converted.
    """

    name: str = Field(description="Who wrote it.")
    outcome: Literal["kept", "accepted", "refused"]
    reason: str
    nodes: Count | None = Field(default=None, description="Subgraphs included; None where there is no graph.")
    size_bytes: Count | None = None
    max_absolute: float | None = Field(default=None, description="Largest difference to the source.")
    mismatched_rows: Count | None = Field(
        default=None, description="Rows out of tolerance; None where not compared."
    )
    label_flips: Count | None = None
    comparisons: list[Comparison] = Field(
        default=[], description="With the graph as it was converted, at each batch size."
    )


class Loss(Record):
    """The loss of a model in lower precision by one measure."""

    measure: str
    value: float
    high: float | None = Field(default=None, description="Upper end of its 95 % interval, if it has one.")
    allowed: float | None = Field(default=None, description="None where it is reported only.")
    passed: bool


class LoweringAttempt(Record):
    """One way to lower the model's precision, and its cost."""

    recipe: str
    kept: Count = Field(description="Nodes that were kept in float32.")
    error: float = Field(description="Largest root mean square error of an output, relative to its spread.")
    losses: list[Loss]
    passed: bool


class Lowering(Record):
    """The lowering of a model's precision, and its cost."""

    precision: Literal["fp16", "int8"]
    recipe: str
    data: str = Field(description="The rows on which it was measured.")
    rows: Count
    kept: list[str] = Field(description="Nodes that stay in float32 though they could be less precise.")
    nodes: Count = Field(description="Nodes that could be less precise.")
    sensitivity: dict[str, float] = Field(
        default={}, description="Node to the error that it makes alone, where measured."
    )
    attempts: list[LoweringAttempt]
    losses: list[Loss] = Field(description="Losses of the model that was written, over all rows.")
    size_bytes: Count
    full_size_bytes: Count = Field(description="Size before the lowering.")
    comparisons: list[Comparison] = Field(default=[], description="Its latency against the model's before.")
    notes: list[str] = []
    passed: bool


# -- Rules of the runtime ------------------------------------------------------------------------------------


class LintRule(Record):
    """A rule of the runtime that will load the model."""

    id: str
    level: Literal["error", "warning", "note"]
    requirement: str = Field(description="What must hold.")
    reason: str = Field(description="What happens otherwise.")
    remedy: str


class Finding(Record):
    """A place where a rule is broken."""

    rule: str = Field(description="The rule's id.")
    location: str = Field(description="Where in the model, as in: input 'x'.")
    message: str
    fixable: bool


class Lint(Record):
    """The verdict of `lint`."""

    target: str
    release: str = Field(description="The runtime's release whose limits were kept.")
    rules: list[LintRule] = Field(description="All rules that were checked.")
    findings: list[Finding]
    repairs: list[str] = Field(default=[], description="What was repaired before, one sentence each.")


# -- Report -------------------------------------------------------------------------------------------------


class Check(Record):
    """A gate. The run passes when all of its gates pass."""

    id: str
    passed: bool
    undecided: bool = Field(
        default=False, description="The data do not say. Whether such a gate passes is the user's choice."
    )
    message: str


class Subject(Record):
    """One model and its results."""

    name: str
    model: ModelSummary
    source: SourceSummary | None = None
    conversion: ConversionRecord | None = None
    parity: Parity | None = None
    search: Search | None = None
    drift: LabelDrift | None = None
    bench: Bench | None = None
    comparisons: list[Comparison] = []
    lint: Lint | None = None
    checks: list[Check] = []

    @property
    def passed(self) -> bool:
        """Whether every gate of this model passed."""
        return all(check.passed for check in self.checks)

    def cell(
        self, *, batch: int | None = None, provider: str | None = None, threads: int | None = None, **more: Any
    ) -> Cell:
        """The one measured cell that fits.

        Args:
            batch: Rows of a query; None takes whichever was measured.
            provider: As `cpu`, `cuda` or `CPUExecutionProvider`; `source` is the source in its own framework. None
                takes that of ONNX Runtime which was measured.
            threads: Threads within an operator.
            **more: Other fields of a `Cell`, as `concurrency=2`, `scenario="server"` or `dims={"seq": 128}`.

        Raises:
            UsageError: none fits, or several do; the message names them.

        >>> speed["model.onnx"].cell(batch=10, provider="cpu").rows_per_s > 0
        True
        """
        return _one_cell(self, {"batch": batch, "provider": provider, "threads": threads, **more})

    def latency(
        self, *, batch: int | None = None, provider: str | None = None, threads: int | None = None, **more: Any
    ) -> Latency:
        """The latency of the one measured cell that fits; see `cell`.

        >>> 0 < speed["model.onnx"].latency(batch=1, provider="cpu").p50 < 1
        True
        """
        latency = self.cell(batch=batch, provider=provider, threads=threads, **more).latency
        assert latency is not None  # noqa: S101 - `cell` finds measured ones only
        return latency

    def __repr__(self) -> str:
        """Verdict and rows off in a line."""
        verdict = _renderer("findings").subject_verdict(self)
        return f"<{units.visible(self.name)}: {verdict.symbol} {verdict.word.lower()}{_rows_off(self)}>"


class Report(Record):
    """The results of one command."""

    schema_version: Literal["2.0"] = SCHEMA_VERSION
    tool_version: str = __version__
    command: Literal["convert", "verify", "bench", "bundle", "demo", "lint"]
    created: datetime.datetime
    environment: Environment
    subjects: list[Subject]

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(check.passed for subject in self.subjects for check in subject.checks)

    def __bool__(self) -> bool:
        """The verdict, so that `assert onnxtool.verify(...)` gates a test.

        >>> bool(report)
        True
        """
        return self.passed

    def __getitem__(self, model: str | int) -> Subject:
        """A model's part of the report, by the model's name or its position.

        Raises:
            UsageError: there is no such model; the message names those that there are.

        >>> report["model.onnx"].parity.mismatched_rows
        0
        """
        return self.subjects[model] if isinstance(model, int) else _named(self.subjects, model, "model")

    def to_frame(self, table: Literal["parity", "cells", "checks"]) -> pd.DataFrame:
        """A table of the report for pandas, numbers unrounded, times in seconds.

        Args:
            table: `parity` has a row for each output compared, `cells` for each cell measured, and `checks` for each
                gate. The columns are those of `report.save("x.csv")`.

        Raises:
            UsageError: there is no such table.
            MissingExtraError: pandas is not installed.

        >>> report.to_frame("parity")[["subject", "output", "rows", "mismatched_rows", "passed"]]
              subject      output  rows  mismatched_rows  passed
        0  model.onnx  prediction   500                0    True
        """
        frame: pd.DataFrame = _renderer("tables").frame(self, table)
        return frame

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> Path:  # noqa: A002 - the option's name
        """Write the report to a file.

        Args:
            path: The file. Its ending names the format: `.html`, `.md`, `.json`, `.csv`, `.txt`, `.xml` (JUnit) or
                `.sarif`. Only JSON has all of the report, and is read back.
            format: Name of a format, as `onnxtool report --format` takes it, where the ending names none.

        Returns:
            The file.

        Raises:
            UsageError: the ending names no format.
            OutputError: the file cannot be written.

        >>> report.save("report.html")
        PosixPath('report.html')
        """
        saved: Path = _renderer("render").save(self, Path(path), format)
        return saved

    def __repr__(self) -> str:
        """Verdict, models and rows off in a line; `print(report)` writes what the terminal shows.

        >>> report
        <onnxtool convert: ✓ passed, model.onnx, 0 of 500 rows off>
        """
        verdict = _renderer("findings").verdict(self)
        names = [units.visible(subject.name) for subject in self.subjects]
        models = f"{len(names)} models" if len(names) > _SHOWN else ", ".join(names) or "no model"
        off = _rows_off(*self.subjects)
        return f"<onnxtool {self.command}: {verdict.symbol} {verdict.word.lower()}, {models}{off}>"

    def __str__(self) -> str:
        """What the terminal shows, 100 columns wide.

        >>> print(str(report).partition(".")[0])
        ✓ PASSED  The check of 1 model passed: 1 output compared over 500 rows, where 1,024 are usual
        """
        text: str = _renderer("terminal").render(self)
        return text.rstrip("\n")

    def _repr_html_(self) -> str:
        fragment: str = _renderer("html").fragment(self)
        return fragment

    def _ipython_key_completions_(self) -> list[str]:
        return [subject.name for subject in self.subjects]


def _rows_off(*subjects: Subject) -> str:
    compared = [subject.parity for subject in subjects if subject.parity]
    off, rows = sum(parity.mismatched_rows for parity in compared), sum(parity.rows for parity in compared)
    return f", {off:,} of {rows:,} rows off" if compared else ""


def _named(records: Sequence[Any], name: str, noun: str) -> Any:
    found = [record for record in records if record.name == name]
    if not found:
        names = ", ".join(repr(record.name) for record in records) or "none"
        raise UsageError(f"The report has no {noun} {name!r}. It has: {names}.")
    return found[0]


def _one_cell(subject: Subject, expected: dict[str, Any]) -> Cell:
    findings = _renderer("findings")
    if unknown := expected.keys() - Cell.model_fields.keys():
        raise UsageError(f"A cell has no field {min(unknown)!r}.")
    expected = {name: value for name, value in expected.items() if value is not None}
    provider = expected.pop("provider", None)

    def fits(cell: Cell) -> bool:
        names = {cell.provider.lower(), units.provider(cell.provider).lower()}
        right = cell.provider != findings.SOURCE if provider is None else provider.lower() in names
        return right and all(getattr(cell, name) == value for name, value in expected.items())

    measured = [cell for cell in (subject.bench.cells if subject.bench else ()) if cell.latency]
    found = [cell for cell in measured if fits(cell)]
    if len(found) != 1:
        problem = "None fits." if not found else f"{len(found)} fit; say more of batch, provider, threads."
        names = "; ".join(findings.cell_name(cell) for cell in (found or measured)[:8]) or "none"
        raise UsageError(f"Not one cell of {subject.name} is meant: {problem} Measured: {names}.")
    return found[0]
