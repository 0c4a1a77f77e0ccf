"""Summaries of a report for all renderers: the verdict, the numbers that matter, and the notes of each table.

All renderers use these functions, so that they agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from onnxtool.reports import units
from onnxtool.reports.model import (
    Bench,
    Cell,
    Check,
    Comparison,
    DimensionSizes,
    Explanation,
    Finding,
    GroupQuality,
    Inconsistency,
    InputRounding,
    LabelDrift,
    LatencyBound,
    Lint,
    LintRule,
    Metric,
    OutputParity,
    Parity,
    Percentile,
    Report,
    Search,
    SearchCategory,
    Stage,
    Subject,
    Ties,
)

T = TypeVar("T")

CONTENDED = 0.05
"""Share of the time that threads were ready to run, from which their wait for a core is marked."""

DIFFERS = 1.5
"""Ratio of the slow batches to the fast ones from which they are shown to differ."""

SIGNIFICANT = 0.001
"""Probability of a difference by chance below which batches count as different."""

SOURCE = "source"
"""The provider of a cell that measured the source model in its own framework."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The headline of a report.

    Attributes:
        outcome: `undecided` when a gate could not decide and none failed, whether or not that fails the run;
            `unchecked` when no gate was applied, which is no success.
        reason: One sentence.
    """

    outcome: Literal["passed", "failed", "undecided", "unchecked"]
    reason: str

    @property
    def symbol(self) -> str:
        """A sign that needs no colour."""
        return {"passed": "✓", "failed": "✗", "undecided": "?", "unchecked": "○"}[self.outcome]

    @property
    def word(self) -> str:
        """The outcome, for a headline."""
        words = {"passed": "Passed", "failed": "Failed", "undecided": "Undecided", "unchecked": "Nothing checked"}
        return words[self.outcome]


def verdict(report: Report) -> Verdict:
    """The verdict of the whole report, and why."""
    checks = [check for subject in report.subjects for check in subject.checks]
    models = units.plural(len(report.subjects), "model")
    if not checks:
        return Verdict("unchecked", f"No gate was applied to {models}.")
    found = failures(report)
    outcome: Literal["failed", "undecided"] = "failed" if found else "undecided"
    found = found or [
        (subject, check) for subject in report.subjects for check in subject.checks if check.undecided
    ]
    if not found:
        saved = [check.message for check in checks if check.id == "saved-version"]
        return Verdict("passed", " ".join([f"{_all(len(checks))} of {models} passed{_scope(report)}.", *saved]))
    subject, check = found[0]
    others = len(found) - 1
    verb = "failed" if outcome == "failed" else "is undecided" if others == 1 else "are undecided"
    more = f" And {units.plural(others, 'more check')} {verb}." if others else ""
    name = f"{subject.name}: " if len(report.subjects) > 1 else ""
    return Verdict(outcome, f"{name}{check.message.rstrip('.')}.{more}")


def subject_verdict(subject: Subject) -> Verdict:
    """The verdict on one model."""
    failed = [check for check in subject.checks if not check.passed and not check.undecided]
    undecided = [check for check in subject.checks if check.undecided]
    if not subject.checks:
        return Verdict("unchecked", "No gate was applied.")
    if failed:
        return Verdict("failed", failed[0].message)
    if undecided:
        return Verdict("undecided", undecided[0].message)
    return Verdict("passed", f"{_all(len(subject.checks))} passed.")


def breaches(lint: Lint | None) -> list[tuple[Finding, LintRule]]:
    """The linter's findings, each with the rule that is broken."""
    rules = {rule.id: rule for rule in lint.rules} if lint else {}
    return [(finding, rules[finding.rule]) for finding in (lint.findings if lint else ())]


def lint_line(lint: Lint) -> str:
    """A summary of the linter's run."""
    found = units.plural(len(lint.findings), "finding") if lint.findings else "nothing found"
    return f"of {lint.target} {lint.release}: {units.plural(len(lint.rules), 'rule')}, {found}"


def failures(report: Report) -> list[tuple[Subject, Check]]:
    """The gates that failed; those that are undecided are not among them."""
    return [
        (subject, check)
        for subject in report.subjects
        for check in subject.checks
        if not check.passed and not check.undecided
    ]


def model_line(subject: Subject) -> str:
    """The model, where it came from and how large it is, in a line."""
    model, source = subject.model, subject.source
    opset = model.opsets.get("ai.onnx")
    parts = [
        f"ONNX opset {opset}" if opset else f"ONNX, {', '.join(model.opsets)}",
        units.size(model.size_bytes),
        units.plural(model.parameters, "parameter"),
    ]
    saved = (
        [f"{saved.library} {saved.version}" for saved in source.saved_by if saved.version != saved.running]
        if source
        else []
    )
    by = f" (file of {', '.join(saved)})" if saved else ""
    origin = f"{source.framework} {source.framework_version}{by} {source.kind} → " if source else ""
    return origin + ", ".join(parts)


def worst_output(parity: Parity) -> OutputParity | None:
    """The output that a reader should see first: one that failed, or the one with the largest difference."""
    return max(
        parity.outputs,
        key=lambda output: (not output.passed, output.mismatched_rows, output.max_absolute or 0.0),
        default=None,
    )


def failed(record: OutputParity | Metric | GroupQuality) -> bool:
    """Whether a row of a table is a failure."""
    return not record.passed


def unmeasured(cell: Cell) -> bool:
    """Whether a cell could not be measured as requested."""
    return cell.status != "measured"


def systematic(output: OutputParity) -> str:
    """The reason why an output fails although each of its elements is within tolerance."""
    return (
        f"each element is within tolerance, but on average they differ by {units.number(output.noise_ratio)} times "
        "what rounding makes: the models compute something else."
    )


def tolerance(output: OutputParity) -> str:
    """The tolerance of an output's elements, as text."""
    limits = output.tolerance
    if not limits.rtol and not limits.atol:
        return "equal"
    return f"{units.number(limits.atol)} + {units.number(limits.rtol)}·|source|"


def tolerance_notes(parity: Parity) -> list[str]:
    """The tolerances that were applied, each with its reason and the outputs that it holds for."""
    names: dict[str, list[str]] = {}
    for output in parity.outputs:
        names.setdefault(f"{tolerance(output)} ({output.tolerance.reason})", []).append(units.name(output.name))
    if len(names) == 1:
        return [f"Tolerance: {next(iter(names))}."]
    return [f"Tolerance of {_enumerate(outputs, 'outputs')}: {text}." for text, outputs in names.items()]


def parity_notes(parity: Parity) -> list[str]:
    """Notes below the table: tolerances, outputs that could not be compared, columns that were ignored."""
    notes = tolerance_notes(parity)
    for output in parity.outputs:
        if output.problem:
            notes.append(f"{units.name(output.name)}: {output.problem}")
        if output.mismatched_nonfinite:
            notes.append(
                f"{units.name(output.name)}: {units.plural(output.mismatched_nonfinite, 'element')} NaN or infinite "
                "on one side only, or of another sign."
            )
    floors = sorted({output.relative_floor for output in parity.outputs if output.relative_floor})
    left_out = sum(output.below_floor for output in parity.outputs)
    if floors and left_out:
        limit = " or ".join(units.number(floor) for floor in floors)
        notes.append(
            f"Relative differences leave out {units.plural(left_out, 'element')} nearer to zero than {limit}."
        )
    if parity.input_rounding is not None:
        notes.append(input_rounding(parity.input_rounding))
    if parity.ties is not None:
        notes.append(ties(parity.ties))
    return [*notes, *size_notes(parity), *parity.notes]


def input_rounding(found: InputRounding) -> str:
    """What the cast of the rows to the ONNX model's inputs costs, and what the conversion does."""
    inputs = [f"{name} ({how})" for name, how in found.inputs.items()]
    casts = ", ".join(inputs[:6]) + (f" and {len(inputs) - 6} more" if len(inputs) > 6 else "")
    if not found.rows and not found.conversion_rows:
        return f"The ONNX model's inputs round the rows: {casts}. That moves no row out of tolerance."
    flips = f" and flips {units.plural(found.label_flips, 'label')}" if found.label_flips else ""
    largest = f" by up to {units.number(found.largest)}" if found.largest else ""
    accepted = " That is accepted, and no drift." if found.accepted else ""
    moved = units.plural(found.conversion_rows, "row")
    return (
        f"Rounding of the input, {casts}, alone moves {units.plural(found.rows, 'row')} out of tolerance{largest}"
        f"{flips}; the conversion moves {moved}.{accepted}"
    )


def ties(found: Ties) -> str:
    """How many rows got another right answer than the source's, and what to do about it."""
    several = (
        f"In {units.plural(found.rows, 'row')} several nearest neighbours are equally far: the source takes one, the "
        "ONNX model another, and both are right by the model's own definition."
    )
    return f"{several} {'That is accepted, and no drift.' if found.accepted else 'To accept it: --accept-ties.'}"


def drift_notes(drift: LabelDrift) -> list[str]:
    """Notes below the table of metrics: how many answers changed, and whether that is chance."""
    notes = []
    if drift.flips:
        share = units.interval(100 * drift.flips.low, 100 * drift.flips.high)
        notes.append(
            f"The class differs in {units.count(drift.flips.count)} of {units.plural(drift.flips.rows, 'row')}; "
            f"with 95 % confidence in {share} % of such rows (exact, Clopper-Pearson)."
        )
    if drift.mcnemar and drift.mcnemar.source_only + drift.mcnemar.onnx_only:
        notes.append(
            f"{units.count(drift.mcnemar.source_only)} right by the source alone, "
            f"{units.count(drift.mcnemar.onnx_only)} by ONNX alone: p = {units.number(drift.mcnemar.p_value)} "
            "that they err equally often (exact, McNemar)."
        )
    methods: dict[str, list[str]] = {}
    for metric in drift.metrics:
        if metric.method:
            methods.setdefault(metric.method, []).append(metric.name)
    if methods:
        methods_used = "; ".join(f"{method} for {', '.join(names)}" for method, names in methods.items())
        notes.append(f"Intervals of the differences: {methods_used}.")
    return [*notes, *drift.notes]


def search_effort(search: Search) -> str:
    """The number of rows tried, the time, the budget and the seed."""
    rows = units.plural(search.rows, "row")
    return f"{rows} in {units.seconds(search.seconds)}, budget {search.budget}, seed {search.seed}"


def out_of_tolerance(category: SearchCategory) -> bool:
    """Whether a kind of rows drifts."""
    return bool(category.mismatches)


def search_notes(search: Search) -> list[str]:
    """Findings that are no numeric differences, and where the worst rows are saved."""
    notes = [f"{category.name}: {text}" for category in search.categories for text in category.findings]
    if any(category.ties for category in search.categories):
        notes.append("Ties are labels that differ where the source itself is undecided to within tolerance.")
    if search.saved:
        notes.append(
            f"The worst {units.plural(search.saved_rows, 'row')}: {search.saved}. Replay them with --data."
        )
    return notes


def notable_stages(explanation: Explanation, around: int) -> list[Stage]:
    """The stages around the first failure. Stages without a known difference are left out."""
    known = [stage for stage in explanation.stages if stage.difference is not None]
    if explanation.first_failure is None:
        return known[-2 * around :]
    place = known.index(explanation.stages[explanation.first_failure])
    return known[max(0, place - around) : place + around + 1]


def first_failure(explanation: Explanation) -> Callable[[Stage], bool]:
    """A predicate: whether a stage is the first one out of tolerance."""
    place = explanation.first_failure
    return lambda stage: place is not None and stage is explanation.stages[place]


def stage_bar(stage: Stage) -> float:
    """Length of a stage's bar in percent: logarithmic, from 1e-9 of the value to all of it."""
    return 0.0 if not stage.difference else 100 * min(1.0, max(0.02, 1 + math.log10(stage.difference) / 9))


def explained_by(explanation: Explanation) -> str:
    """The rows and stages that were compared, as text."""
    against = "the source's own steps" if explanation.against == "source" else "the graph in float64"
    if explanation.provider:
        against = "the same graph on the CPU"
    matched = sum(stage.tensor is not None for stage in explanation.stages)
    return (
        f"the {units.plural(len(explanation.rows), 'row')} that differ most; {matched:,} of "
        f"{units.plural(len(explanation.stages), 'stage')} compared with {against}"
    )


def inconsistency(found: Inconsistency) -> str:
    """How the source contradicts itself."""
    layer = f" It begins at {found.layer}." if found.layer else ""
    counted = f"{units.count(found.mismatched_rows)} of {units.plural(found.rows, 'row')}"
    if found.kind == "batch-dependent":
        return (
            f"The source's answer to a row depends on the other rows of its batch: {counted} got another answer in "
            f"another batch.{layer} The two models were compared on the same batches."
        )
    how = {
        "random": f"It is random: asked twice, it gives {counted} another answer.",
        "stateful": f"It is stateful: its answer depends on what it was asked before, for {counted}.",
    }[found.kind]
    return f"The source disagrees with itself, so nothing can be proved. {how}{layer}"


def rows_line(parity: Parity) -> str:
    """The rows that were compared, and their origin, as text."""
    seed = f", seed {parity.seed}" if parity.seed is not None else ""
    batches = ", ".join(map(str, parity.batches))
    data = parity.data.removeprefix(f"{parity.rows} rows ")  # the description of generated rows has their number
    sizes = "".join(f", {dimension_sizes(found)}" for found in parity.sizes)
    return (
        f"{units.plural(parity.rows, 'row')} ({data}{seed}) in batches of {batches}{sizes} "
        f"on {units.provider(parity.provider)}"
        + (
            f" with {' '.join(f'{name}={value}' for name, value in parity.options.items())}"
            if parity.options
            else ""
        )
    )


def few_rows(parity: Parity) -> str:
    """How many rows were compared, where more are usual."""
    return f"{units.plural(parity.rows, 'row')}, where {units.count(parity.usual_rows or 0)} are usual"


def dimension_sizes(found: DimensionSizes) -> str:
    """The sizes of a dimension at which the two models were compared, as in `length 1, 12, 40`."""
    return f"{found.dimension} {', '.join(map(str, found.compared))}"


def size_notes(parity: Parity) -> list[str]:
    """Sizes that were not compared, and why."""
    refused = [(found.dimension, found.refused) for found in parity.sizes if found.refused]
    skipped = [(found.dimension, found.skipped) for found in parity.sizes if found.skipped]
    return [
        f"{what}: {'; '.join(f'{name} {_numbers(sizes)}' for name, sizes in found)}."
        for what, found in (
            ("Sizes that the source refuses", refused),
            ("Sizes left out, since they would take too long", skipped),
        )
        if found
    ]


def _numbers(sizes: Sequence[int]) -> str:
    return ", ".join(map(units.count, sizes))


def bounds(low: int | None, high: int | None) -> str:
    """The sizes that a dimension may have, as in `2 or more`."""
    if high is None:
        return f"{low} or more"
    return f"up to {high}" if low is None else f"{low} to {high}"


def failing_sizes(found: DimensionSizes) -> str:
    """Where the two models do not agree, as a sentence."""
    failing = "; ".join(f"at {found.dimension} {failure.size}, {failure.problem}" for failure in found.failures)
    return f"They agree at {dimension_sizes(found)}, but {failing}."


def percentile(cell: Cell, q: float) -> Percentile | None:
    """A percentile of a cell's latency, by its fraction (0.5 for the median); None when none was measured."""
    if cell.latency is None:
        return None
    return next((entry for entry in cell.latency.percentiles if entry.q == q), None)


def median(cell: Cell) -> float | None:
    """The median latency in seconds."""
    entry = percentile(cell, 0.5)
    return entry.value_s if entry else None


def speedup(bench: Bench, cell: Cell) -> float | None:
    """The source's median over this cell's, at the same batch size and, where it was measured, thread count."""
    if cell.provider == SOURCE:
        return None
    like = (cell.batch, cell.concurrency)
    sources = [
        other for other in bench.cells if (other.batch, other.concurrency) == like and other.provider == SOURCE
    ]
    source = next((other for other in sources if other.threads == cell.threads), sources[0] if sources else None)
    theirs, ours = median(source) if source else None, median(cell)
    return theirs / ours if theirs and ours else None


def headline_cell(bench: Bench) -> Cell | None:
    """The cell that stands for a model: the fastest one at the smallest batch size measured."""
    measured = [cell for cell in bench.cells if cell.provider != SOURCE and median(cell) is not None]
    return min(measured, key=lambda cell: (cell.batch, median(cell) or 0.0), default=None)


def cell_name(cell: Cell | Comparison) -> str:
    """A cell in words."""
    parts = [units.provider(cell.provider), f"batch {cell.batch}", *sizes(cell)]
    if cell.threads:
        parts.append(units.plural(cell.threads, "thread"))
    return ", ".join(parts + (settings(cell) if isinstance(cell, Cell) else []))


def contended(cell: Cell) -> bool:
    """Whether the threads of a cell waited for a core for more than a share of the time; a warning reports it."""
    return cell.contention is not None and cell.contention.waited_share >= CONTENDED


def sizes(cell: Cell | Comparison) -> list[str]:
    """The dynamic dimensions other than the batch, each with its size."""
    return [f"{units.visible(name)}={size}" for name, size in cell.dims.items()]


def settings(cell: Cell) -> list[str]:
    """Settings of a cell other than provider, batch and threads."""
    parts = []
    if cell.concurrency > 1:
        parts.append(units.plural(cell.concurrency, "caller"))
    if cell.scenario != "single-stream":
        parts.append(cell.scenario + (f" at {units.rate(cell.rate)}/s" if cell.rate else ""))
    if cell.io_binding:
        parts.append("bound")
    if cell.machine is not None:
        parts.append(f"machine {cell.machine + 1}")
    return parts + [f"{name}={value}" for name, value in cell.options.items()]


def coverage(cell: Cell) -> tuple[float, float | None] | None:
    """The share of the nodes, and of the time, that is the provider's own; None where nothing is known.

    A model that is all constants has no nodes: all of none is on the provider.
    """
    if not cell.placement:
        return None if cell.status != "measured" else (1.0, None)
    own = [part for part in cell.placement if part.provider == cell.provider]
    nodes = sum(part.nodes for part in cell.placement)
    known = any(part.time_share is not None for part in cell.placement)
    time = sum(part.time_share or 0.0 for part in own) if known else None
    return (sum(part.nodes for part in own) / nodes if nodes else 1.0), time


def pareto(bench: Bench) -> list[Cell]:
    """The cells that none beats in both latency (median) and throughput, the fastest to answer first.

    Empty where there is nothing to choose from: fewer than two measured cells besides the source's.
    """
    measured = [cell for cell in bench.cells if cell.provider != SOURCE and median(cell) and cell.rows_per_s]
    front: list[Cell] = []
    for cell in sorted(measured, key=lambda cell: (median(cell) or 0.0, -(cell.rows_per_s or 0.0))):
        if not front or (cell.rows_per_s or 0.0) > (front[-1].rows_per_s or 0.0):
            front.append(cell)
    return front if len(measured) > 1 else []


def comparison_line(comparison: Comparison) -> str:
    """The result of a comparison, with its numbers."""
    if comparison.ratio is None:
        return f"{comparison.outcome.capitalize()}: {comparison.reason}"
    verdict = {"pass": "Not slower", "fail": "Slower", "undecided": "Undecided"}[comparison.outcome]
    interval = (
        f"{100 * (comparison.confidence or 0):.4g} % interval {comparison.low:.3f} to {comparison.high:.3f}"
        if comparison.low is not None
        else "without an interval"
    )
    line = (
        f"{verdict}: {comparison.ratio:.3f} times the latency of {comparison.against}, {interval}; "
        f"the smallest effect is {comparison.effect:.3g}."
    )
    return " ".join(filter(None, (line, comparison.reason, longer(comparison))))


def longer(record: Comparison | LatencyBound) -> str:
    """The option by which the undecided cells are measured long enough."""
    if record.needed_s is None:
        return ""
    return f"About {units.seconds(record.needed_s)} would decide: --budget {math.ceil(1.1 * record.needed_s)}."


def bound_line(cell: Cell, bound: LatencyBound) -> str:
    """Whether a percentile is within its bound, and what decides it."""
    name, limit = units.quantile(bound.q), units.seconds(bound.bound_s)
    counted = f"{units.count(bound.above)} of {units.plural(bound.samples, 'query')} took longer"
    if cell.unanswered:
        counted += f", and {units.plural(cell.unanswered, 'query')} got no answer by the end"
    if bound.outcome == "undecided":
        rest = longer(bound) or f"{name} is so near to the bound that no time worth naming would decide."
        return f"Undecided: {name} against {limit}. {counted} in {units.seconds(bound.measured_s)}. {rest}"
    entry = percentile(cell, bound.q)
    known = f", {units.seconds(entry.low_s)} to {units.seconds(entry.high_s)}" if entry and entry.value_s else ""
    fastest = cell.latency.min_s if cell.latency else 0.0
    least = f" The fastest took {units.seconds(fastest)}." if fastest > bound.bound_s else ""
    return f"{name} is {bound.outcome} {limit}{known}: {counted}.{least}"


def undecided(comparison: Comparison) -> bool:
    """Whether a comparison is to be seen before those that passed."""
    return comparison.outcome != "pass"


def comparison_notes(comparisons: Sequence[Comparison]) -> list[str]:
    """The reasons why comparisons were not decided, each once."""
    reasons: dict[str, list[str]] = {}
    for comparison in comparisons:
        if comparison.reason:
            reasons.setdefault(comparison.reason, []).append(cell_name(comparison))
    return [f"{_enumerate(cells, 'cells')}: {reason}" for reason, cells in reasons.items()]


def ran_on(cell: Cell) -> str:
    """The providers that really ran nodes, or, where that is not known, those of the session."""
    if cell.placement:
        several = len(cell.placement) > 1
        return ", ".join(
            f"{units.provider(part.provider)} {part.nodes:,}"
            + (f" ({units.share(part.time_share)} of the time)" if several and part.time_share is not None else "")
            for part in cell.placement
        )
    return ", ".join(units.provider(name) for name in cell.providers) or units.NONE


def placement_notes(bench: Bench) -> list[str]:
    """Whether the requested providers really ran the nodes."""
    placed = [cell for cell in bench.cells if cell.placement]
    strays = {
        f"{cell_name(cell)}: nodes ran on {ran_on(cell)}"
        for cell in placed
        if any(part.provider != cell.provider for part in cell.placement)
    }
    if placed and not strays:
        return ["Every node ran on the requested provider."]
    return sorted(strays)


def bench_notes(bench: Bench, *, unmeasured: bool = True) -> list[str]:
    """The reasons why percentiles were refused or cells not measured, and warnings, each once.

    Args:
        bench: The cells.
        unmeasured: Whether to list the cells that were not measured; a table may already show them.
    """
    notes: dict[str, tuple[str, list[str]]] = {}
    for cell in bench.cells:
        texts = {warning: warning for warning in [*cell.warnings, *doubts(cell)]}
        if unmeasured and cell.status != "measured":
            reason = f"{cell.status}: {cell.reason or 'no reason given'}"
            texts[reason] = reason
        for entry in cell.latency.percentiles if cell.latency else ():
            if entry.reason:  # the reason counts the runs: one note, not one for each count
                texts[f"refused {entry.q}"] = entry.reason
        for key, text in texts.items():
            notes.setdefault(key, (text, []))[1].append(cell_name(cell))
    shared = [f"{_enumerate(cells, 'cells')}: {text}" for text, cells in notes.values()]
    return [*shared, *shape_notes(bench), *_machine_notes(bench), *_timer_note(bench), *_pareto_note(bench)]


def shape_notes(bench: Bench) -> list[str]:
    """The shapes of the inputs as they were run, with the cells that had them and the number of batches."""
    groups: dict[str, list[str]] = {}
    for cell in bench.cells:
        if cell.shapes:
            inputs = ", ".join(f"{units.name(name)} {units.shape(shape)}" for name, shape in cell.shapes.items())
            ran = cell.latency.between.batches if cell.latency and cell.latency.between else cell.batches
            part = f"{ran:,} of " if ran < cell.batches else ""
            turn = f", {part}{cell.batches:,} batches in turn" if cell.batches > 1 else ""
            groups.setdefault(f"{units.shortened(inputs, 200)}{turn}.", []).append(cell_name(cell))
    if len(groups) == 1:
        return [f"Inputs: {next(iter(groups))}"]
    return [f"Inputs of {_enumerate(cells, 'cells')}: {text}" for text, cells in groups.items()]


def doubts(cell: Cell) -> list[str]:
    """Reasons to doubt the numbers of a cell."""
    found = []
    if not cell.warmup_settled:
        found.append("the latency still changed when the warm-up ended. Measure for longer.")
    if (change := cell.latency.change if cell.latency else None) is not None:
        found.append(
            f"the latency changed for good after {units.share(change.at)} of the runs, from a median of "
            f"{units.seconds(change.before_s)} to {units.seconds(change.after_s)}: throttling, or another load. "
            "Its percentiles mix both."
        )
    spread = cell.latency.between if cell.latency else None
    if (
        spread is not None
        and spread.p_value is not None
        and spread.p_value <= SIGNIFICANT
        and spread.high_s > DIFFERS * spread.low_s
    ):
        found.append(
            f"the latency depends on the row: medians of {units.plural(spread.batches, 'batch')} go from "
            f"{units.seconds(spread.low_s)} to {units.seconds(spread.high_s)} (5th and 95th percentile)."
        )
    if cell.unanswered:
        found.append(
            f"{units.plural(cell.unanswered, 'query')} got no answer by the end: they come faster than the model "
            "answers. Their latency counts up to the end."
        )
    if cell.build_s is not None:
        found.append(f"its engine was built in {units.seconds(cell.build_s)}, which is not in the times shown.")
    return found


def _machine_notes(bench: Bench) -> list[str]:
    """The machines of a sweep that was spread over several: cells of different machines are not comparable."""
    return [
        f"Machine {number}: {machine.cpu.name}, {units.plural(machine.cpu.usable_cores, 'core')}, "
        f"{', '.join([*(gpu.name for gpu in machine.gpus), machine.os])}."
        for number, machine in enumerate(bench.machines, 1)
    ]


def _timer_note(bench: Bench) -> list[str]:
    """The largest share that the clock and the loop add to the median of a cell."""
    shares = [
        (cell.timer_overhead_s / value, cell)
        for cell in bench.cells
        if cell.timer_overhead_s and (value := median(cell))
    ]
    if not shares:
        return []
    worst, cell = max(shares, key=lambda pair: pair[0])
    return [
        f"The clock's resolution is {units.seconds(cell.timer_resolution_s)}; reading it adds "
        f"{units.seconds(cell.timer_overhead_s)} to a run, at most {units.number(100 * worst, 2)} % of a median."
    ]


def _pareto_note(bench: Bench) -> list[str]:
    return ["★ No cell beats it in both latency and throughput."] if pareto(bench) else []


def unmeasured_groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells that were not measured, those of one provider and one reason together."""
    groups: dict[tuple[str, str, str | None], list[Cell]] = {}
    for cell in filter(unmeasured, cells):
        groups.setdefault((cell.provider, cell.status, cell.reason), []).append(cell)
    return list(groups.values())


def most_notable(items: Sequence[T], limit: int, first: Callable[[T], bool]) -> list[T]:
    """At most `limit` items in their order, those for which `first` holds before the rest where not all fit."""
    if len(items) <= limit:
        return list(items)
    return sorted(items, key=lambda item: not first(item))[:limit]


def half_precisions(parities: Iterable[Parity]) -> list[str]:
    """The half precisions that graphs compute in, where their outputs are of finer ones."""
    outputs = (output for parity in parities for output in parity.outputs)
    return sorted({output.tolerance.half for output in outputs if output.tolerance.half})


def _scope(report: Report) -> str:
    parities = [subject.parity for subject in report.subjects if subject.parity]
    cells = [cell for subject in report.subjects if subject.bench for cell in subject.bench.cells]
    parts = []
    if parities:
        outputs = units.plural(sum(len(parity.outputs) for parity in parities), "output")
        rows = units.plural(sum(parity.rows for parity in parities), "row")
        few = [parity for parity in parities if parity.usual_rows is not None]
        parts.append(f"{outputs} compared over {few_rows(few[0]) if few and len(parities) == 1 else rows}")
        if few and len(parities) > 1:
            parts.append(f"{units.plural(len(few), 'model')} over fewer rows than are usual")
        parts += [f"with the tolerances of {half}" for half in half_precisions(parities)]
    if cells:
        measured = sum(cell.status == "measured" for cell in cells)
        parts.append(f"{measured:,} of {units.plural(len(cells), 'cell')} measured")
    comparisons = [found for subject in report.subjects for found in subject.comparisons]
    if comparisons:
        decided = sum(found.outcome != "undecided" for found in comparisons)
        parts.append(f"{decided:,} of {units.plural(len(comparisons), 'comparison')} decided")
    return f": {', '.join(parts)}" if parts else ""


def _all(checks: int) -> str:
    return "The check" if checks == 1 else f"All {checks} checks"


def _enumerate(names: Iterable[str], noun: str) -> str:
    listed = list(names)
    return "; ".join(listed) if len(listed) <= 3 else f"{listed[0]} and {len(listed) - 1:,} more {noun}"
