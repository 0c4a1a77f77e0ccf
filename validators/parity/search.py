"""A search for rows on which two models diverge: at thresholds, at extreme numbers, and by hill climbing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import ModelError, SourceError, UsageError
from onnxtool.files import staged_path, writing
from onnxtool.models.onnx.evaluate import whole
from onnxtool.models.rows.batches import row_dimension
from onnxtool.models.rows.domain import Domain
from onnxtool.models.rows.inputs import graph_domains, make_inputs
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.reports.model import Search, SearchCategory
from onnxtool.validators.numerics.tolerance import Limit
from onnxtool.validators.parity.input_rounding import row_differences
from onnxtool.validators.parity.pairs import Pair
from onnxtool.validators.parity.rowwise import RowComparer, Verdicts
from onnxtool.validators.parity.thresholds import graph_thresholds

DEFAULT_BUDGET = "20s"
SAVED_ROWS = 16
"""Rows of the worst that are saved."""

_BASE = 256  # rows that the search starts from
_BLOCK = 4096
_SEEDS = 8  # rows that are climbed from at a time
_CHILDREN = 16  # tries of each in a step
_SHARE = 0.6  # of the budget that is for known places; the rest is for climbing
_PAIRS = 64  # of rows between which boundaries are sought
_HALVINGS = 60
_ODD = 7
_LARGE = (1e3, 1e6, 1e12, 1e30)
_ROUNDING = "moved by the rounding of the input alone, which a model made with --input-dtype float64 has not"
_BUDGET = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>s?)")


@dataclass
class Budget:
    """Seconds or rows that may be spent.

    Attributes:
        text: As the user gave it.
        seconds: Most seconds, if these are counted.
        rows: Most rows, if these are counted; the search is then the same each time.
    """

    text: str
    seconds: float | None = None
    rows: int | None = None
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def parse(cls, text: str | float) -> Budget:
        """Read `30s` as seconds and `20000` as rows.

        Raises:
            UsageError: it is neither.
        """
        match = _BUDGET.fullmatch(str(text).strip())
        if match is None or not float(match["number"]) or (not match["unit"] and "." in match["number"]):
            raise UsageError(
                f"--budget {text!r} is neither seconds, as in 30s, nor a number of rows, as in 20000."
            )
        if match["unit"]:
            return cls(f"{match['number']} s", seconds=float(match["number"]))
        return cls(f"{int(match['number']):,} rows", rows=int(match["number"]))

    def spent(self, rows: int) -> float:
        """Share of the budget that is gone."""
        if self.seconds is not None:
            return (time.monotonic() - self.began) / self.seconds
        return rows / (self.rows or 1)


@dataclass
class _Log:
    """The results of a category of the search."""

    name: str
    rows: int = 0
    mismatches: int = 0
    worst: float | None = None
    ties: int = 0
    both_refused: int = 0
    messages: dict[str, int] = field(default_factory=dict)
    suspects: list[tuple[float, Tensors]] = field(default_factory=list)

    def record(self) -> SearchCategory:
        return SearchCategory(
            name=self.name,
            rows=self.rows,
            mismatches=self.mismatches,
            worst=self.worst,
            ties=self.ties,
            both_refused=self.both_refused,
            findings=[f"{text} ({count} times)" if count > 1 else text for text, count in self.messages.items()],
        )


def search(
    pair: Pair,
    base: Tensors,
    *,
    rtol: Limit = None,
    atol: Limit = None,
    budget: str | float = DEFAULT_BUDGET,
    seed: int = 0,
    save: Path | None = None,
    always_save: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Search:
    """Search for rows on which the two models diverge.

    Args:
        pair: The models.
        base: Ordinary rows of the source's inputs, to start from.
        rtol: Relative tolerance, as for `check_parity`.
        atol: Absolute tolerance, likewise.
        budget: Seconds, as in `30s`, or rows, as in `20000`.
        seed: Seed of the search.
        save: File for the worst rows, as named arrays that `--data` reads.
        always_save: Whether to save them though they are within tolerance.
        on_progress: Called with the share of the budget that is gone, in percent, and 100.

    Raises:
        ModelError: ONNX Runtime refuses even ordinary rows.
        OutputError: the rows cannot be saved.
        SourceError: the source does.
        UsageError: the budget is none.
    """
    searcher = _Searcher(pair, base, (rtol, atol), Budget.parse(budget), seed)
    searcher.on_progress = on_progress
    searcher.run()
    path, rows = None, 0
    if save is not None and (searcher.drifted or always_save) and searcher.worst:
        path, rows = save, searcher.save(save)
    return Search(
        budget=searcher.budget.text,
        seed=seed,
        rows=searcher.comparer.rows,
        seconds=time.monotonic() - searcher.budget.began,
        categories=[log.record() for log in searcher.logs],
        saved=str(path) if path else None,
        saved_rows=rows,
        passed=not searcher.drifted,
    )


class _Searcher:
    def __init__(
        self,
        pair: Pair,
        base: Tensors,
        limits: tuple[Limit, Limit],
        budget: Budget,
        seed: int,
    ) -> None:
        self.pair, self.budget, self.limits = pair, budget, limits
        self.rng = np.random.default_rng(seed)
        self.seed = seed
        self.on_progress: Callable[[int, int], None] | None = None
        self.specs = pair.source.inputs
        self.batching = pair.batching
        total = self.batching.count(base)
        picked = np.unique(np.linspace(0, total - 1, min(_BASE, total)).astype(int))
        self.base = self.batching.take(base, picked)
        truth, _ = pair.run(self._cycled(self.base, self.fixed or 1))
        self.outputs = list(truth)
        self.comparer = RowComparer(pair, pair.tolerances(self.base, self.outputs, *limits))
        self.domains = {**graph_domains(pair.model.proto), **pair.source.domains()}
        self.logs: list[_Log] = []
        self.worst: list[tuple[float, Tensors]] = []

    @property
    def fixed(self) -> int:
        """Size of the batch where the model takes no other; else 0."""
        return self.batching.size or 0

    @property
    def drifted(self) -> bool:
        """Whether a row is out of tolerance."""
        return any(log.mismatches for log in self.logs)

    def run(self) -> None:
        """All categories in turn, then hill climbing from the worst rows until the budget is spent."""
        self._try("ordinary rows", [self.base])
        self._try("tree thresholds", self._at_thresholds())
        self._boundaries()
        self._try("large numbers", self._scaled(_LARGE), own_tolerances=True)
        self._try("subnormal numbers", self._subnormal(), own_tolerances=True)
        self._try("NaN and infinity", self._non_finite())
        self._try("text and categories", self._strange())
        if not self.fixed:
            self._dimensions()
            self._alone()
        self._climb()

    # -- Known places -------------------------------------------------------------------------------------

    def _at_thresholds(self) -> Iterator[Tensors]:
        """Each threshold, and the numbers next to it, in every column at once; then a column at a time."""
        marks = self._marks()
        if not marks:
            return
        longest = max(len(values) for values in marks.values())
        for together in (True, False):
            for start in range(0, longest, _BLOCK):
                size = min(_BLOCK, longest - start)
                columns = list(marks)
                for chosen in [columns] if together else [[column] for column in columns]:
                    rows = self._cycled(self.base, size)
                    for name, column in chosen:
                        values = marks[name, column]
                        place = (np.arange(size) + start) % len(values)
                        rows[name].reshape(size, -1)[:, column] = values[place]
                    yield rows

    def _marks(self) -> dict[tuple[str, int], NDArray[Any]]:
        """Thresholds by input and column, each with the two numbers of the input's dtype on either side."""
        proto = whole(self.pair.model)
        graph = graph_thresholds(proto) if proto is not None else {}
        found: dict[tuple[str, int], list[NDArray[np.float64]]] = {}
        for feed in self.pair.feeds.feeds:
            for column, values in graph.get(feed.spec.name, {}).items():
                name, place = feed.columns[0], column if feed.column is None else feed.column
                if len(feed.columns) > 1:
                    name, place = feed.columns[column], 0
                found.setdefault((name, place), []).append(values)
        for name, domain in self.domains.items():
            for column, values in _landmarks(domain):
                found.setdefault((name, column), []).append(values)
        dtypes = {name: self.base[name].dtype for name in self._numbers() if self.base[name].dtype != np.float16}
        marks = {}
        for (name, column), parts in found.items():
            if name in dtypes and column < self.base[name][0].size:
                middle = np.concatenate(parts)
                around = _neighbours(middle[np.isfinite(middle)], dtypes[name])
                if len(around):
                    marks[name, column] = around
        return marks

    def _boundaries(self) -> None:
        """Between rows of different classes, down to neighbouring numbers, on either model's side."""
        log = self._log("decision boundaries")
        verdicts = self._compared(log, self.base)
        if verdicts.labels is None or not self._floats():
            self.logs.remove(log)
            return
        known = np.array([str(label) for label in verdicts.labels])
        order = self.rng.permutation(len(known))
        low = np.resize(order, _PAIRS)
        others = [np.flatnonzero(known != known[row]) for row in low]
        low = np.array([row for row, other in zip(low, others, strict=True) if len(other)], dtype=int)
        if not len(low):
            self.logs.remove(log)
            return
        high = np.array([self.rng.choice(np.flatnonzero(known != known[row])) for row in low])
        first, last = (self.batching.take(self.base, rows) for rows in (low, high))
        for name in set(self.base) - set(self._floats()):
            last[name] = first[name]  # what is no number has no middle
        start = self._compared(log, first).labels
        for _ in range(_HALVINGS):
            middle = {**first, **{n: _middle(first[n], last[n]) for n in self._floats()}}
            settled = all(
                np.array_equal(middle[n], first[n]) or np.array_equal(middle[n], last[n]) for n in self._floats()
            )
            found = self._compared(log, middle).labels
            if settled or found is None or start is None or self._done(_SHARE):
                break
            same = np.array([str(a) == str(b) for a, b in zip(found, start, strict=True)])
            for name in self._floats():
                first[name] = np.where(_along(same, first[name]), middle[name], first[name])
                last[name] = np.where(_along(same, last[name]), last[name], middle[name])
        self._close(log)

    def _scaled(self, factors: Sequence[float]) -> Iterator[Tensors]:
        """Ordinary rows times large numbers: all of a row, and a column alone."""
        for factor in factors:
            for alone in (False, True):
                rows = self._cycled(self.base, min(_BASE, self.size))
                for name in self._floats():
                    flat = rows[name].reshape(len(rows[name]), -1)
                    limit = np.finfo(flat.dtype).max / 4
                    chosen = self.rng.integers(0, flat.shape[1], len(flat)) if alone else slice(None)
                    places = (np.arange(len(flat)), chosen) if alone else (slice(None), slice(None))
                    with np.errstate(over="ignore"):
                        flat[places] = np.clip(flat[places].astype(np.float64) * factor, -limit, limit)
                yield rows

    def _subnormal(self) -> Iterator[Tensors]:
        """Numbers so small that some processors and providers take them for zero, and both zeros."""
        if not self._floats():
            return
        rows = self._cycled(self.base, min(64, self.size))
        for name in self._floats():
            kind = np.finfo(rows[name].dtype)
            tiny = np.array([kind.smallest_subnormal, kind.tiny / 2, kind.tiny, 0.0], rows[name].dtype)
            signs = self.rng.choice(np.array([-1, 1], rows[name].dtype), rows[name].shape)
            rows[name] = self.rng.choice(tiny, rows[name].shape) * signs
        yield rows

    def _non_finite(self) -> Iterator[Tensors]:
        """NaN and both infinities, in each column of a few rows."""
        for name in self._floats():
            columns = self.base[name][0].size
            chosen = self.rng.permutation(columns)[:64]
            for value in (np.nan, np.inf, -np.inf):
                rows = self._cycled(self.base, len(chosen))
                rows[name].reshape(len(chosen), -1)[np.arange(len(chosen)), chosen] = value
                yield rows

    def _strange(self) -> Iterator[Tensors]:
        """Text that no one thought of, and categories and whole numbers that were never seen."""
        strings = ["", " ", "never seen", "ÄÖ\u0301 漢字 \U0001f600", "nan", "None", "0", "x" * 1000]
        for spec in filter(self._in_rows, self.specs):
            if spec.dtype == "string":
                texts = [str(choice) for choice in self.domains.get(spec.name, Domain()).choices[:8]]
                values: list[Any] = strings + [text.upper() for text in texts] + [f" {text} " for text in texts]
            elif "int" in spec.dtype:
                known = np.array(self.domains.get(spec.name, Domain()).choices, dtype=np.float64)
                choices = known[np.isfinite(known)].astype(np.int64).tolist()
                if not choices:
                    continue  # an index: one beyond its table is no input at all
                largest = np.iinfo(spec.dtype).max if self.base[spec.name].dtype.kind in "iu" else 2**53
                values = [min(choices) - 1, max(choices) + 1, 0, -1, largest]
            else:
                continue
            rows = self._cycled(self.base, len(values))
            flat = rows[spec.name].reshape(len(values), -1)
            flat[np.arange(len(values)), self.rng.integers(0, flat.shape[1], len(values))] = values
            yield rows

    # -- Shapes -------------------------------------------------------------------------------------------

    def _dimensions(self) -> None:
        """Every dynamic dimension at 1, 2 and an odd size, and a batch of none."""
        log = self._log("dynamic dimensions")
        # ONNX Runtime ends the whole process on an LSTM that gets no rows.
        operators = {node.op_type for node in self.pair.model.proto.graph.node}
        for size in (1, 2, _ODD) if "LSTM" in operators else (0, 1, 2, _ODD):
            self._shape(
                log,
                f"batch {size}",
                self.batching.rows(self._cycled(self.base, _ODD), 0, size),
            )
        names = {dim for spec in self.specs for dim in spec.shape if isinstance(dim, str)}
        for name in sorted(names - {row_dimension(self.specs)}):
            for size in (1, 2, _ODD):
                specs = [
                    replace(spec, shape=tuple(size if dim == name else dim for dim in spec.shape))
                    for spec in self.specs
                ]
                self._shape(log, f"{name} {size}", make_inputs(specs, 3, self.seed, self.domains))

    def _shape(self, log: _Log, what: str, rows: Tensors) -> None:
        verdicts = self._compared(log, rows, keep=False)
        if not self.batching.count(rows):
            # There is no row to compare: both models must take the batch and agree on the shape.
            try:
                truth, found = self.pair.run(rows)
            except ModelError as error:
                log.messages[f"{what}: {error}"] = 1
            except Exception as error:
                log.messages[f"{what}: the source refuses it: {str(error).splitlines()[0][:150]}"] = 1
            else:
                log.rows += 1
                for name, output in found.items():
                    if np.shape(output)[1:] != np.shape(truth[name])[1:]:
                        log.messages[
                            f"{what}: {name} is {np.shape(truth[name])} and {np.shape(output)} in ONNX"
                        ] = 1
        if np.any(verdicts.excess > 1):
            log.messages[f"{what}: the models diverge"] = 1

    def _alone(self) -> None:
        """A row alone against the same row in a batch, in either model."""
        log = self._log("batch invariance")
        count = min(16, self.size)
        rows = self.batching.rows(self.base, 0, count)
        together = self.pair.run(rows)
        singles = [self.pair.run(self.batching.rows(rows, row, row + 1)) for row in range(count)]
        for side, who in enumerate(("the source", "ONNX")):
            batch = {n: np.asarray(t) for n, t in together[side].items() if np.ndim(t) and len(t) == count}
            single = {n: np.concatenate([pair[side][n] for pair in singles]) for n in batch}
            excess, output, _ = self.comparer.excess(batch, single, count, self.comparer.tolerances)
            log.rows += count
            log.worst = max(log.worst or 0.0, float(excess.max(initial=0.0)))
            if np.any(excess > 1):
                row = int(excess.argmax())
                log.messages[f"{output[row]} of a row depends on the other rows of its batch in {who}"] = 1
                # A source that does so as well is no worse for it in ONNX.
                log.mismatches += int((excess > 1).sum()) if side == 1 and not log.mismatches else 0

    # -- Hill climbing ------------------------------------------------------------------------------------

    def _climb(self) -> None:
        """From the worst rows, a coordinate at a time, towards a larger difference.

        An evolution strategy, (1 + lambda) of each seed, with steps that grow on success and shrink on failure
        (Rechenberg's rule), within the range of the ordinary rows.
        """
        names = self._numbers()
        log = self._log("hill climbing")
        if not names:
            self.logs.remove(log)
            return
        ranges = {name: _range(self.base[name]) for name in names}
        stale = 0
        while not self._done(1.0) and stale < 3:
            seeds = self._seeds(stale)
            scores = self._score(log, seeds)
            steps = np.full(len(scores), 0.5)
            best = scores.max(initial=0.0)
            while steps.max() > 1e-8 and not self._done(1.0) and np.isfinite(scores).all():
                children = self.batching.take(seeds, np.repeat(np.arange(len(scores)), _CHILDREN))
                self._mutate(children, ranges, np.repeat(steps, _CHILDREN))
                found = self._score(log, children).reshape(len(scores), _CHILDREN)
                champion = found.argmax(axis=1)
                better = found[np.arange(len(scores)), champion] > scores
                winners = np.arange(len(scores)) * _CHILDREN + champion
                for name, tensor in seeds.items():
                    if name in names:
                        tensor[better] = children[name][winners[better]]
                scores = np.where(better, found.max(axis=1), scores)
                steps = np.where(better, np.minimum(steps * 1.5, 1.0), steps * 0.5)
            stale = 0 if scores.max(initial=0.0) > 1.05 * best else stale + 1
            if not np.isfinite(scores).all():
                break
        self._close(log)

    def _seeds(self, turn: int) -> Tensors:
        """The worst rows so far that are like ordinary ones, and rows at random."""
        ranges = {name: _range(self.base[name]) for name in self._numbers()}
        known = [rows for _, rows in self.worst if all(_within(rows[n], *ranges[n]) for n in ranges)]
        count = _SEEDS // 2 if turn == 0 else 0
        picked = self.rng.integers(0, self.size, _SEEDS - min(count, len(known)))
        random = self.batching.take(self.base, picked)
        chosen = known[:count]
        return {n: t.copy() for n, t in self.batching.join([*chosen, random]).items()}

    def _mutate(self, rows: Tensors, ranges: Mapping[str, tuple[Any, Any]], steps: NDArray[np.float64]) -> None:
        """Move one coordinate of most rows, and all of the rest, by a normal step within the range."""
        names = self._numbers()
        count = len(steps)
        which = self.rng.integers(0, len(names), count)
        for place, name in enumerate(names):
            flat = rows[name].reshape(count, -1)
            low, high = ranges[name]
            mask = np.zeros(flat.shape, dtype=bool)
            mask[np.arange(count), self.rng.integers(0, flat.shape[1], count)] = True
            mask[which != place] = False
            mask[self.rng.random(count) < 0.25] = True
            move = self.rng.standard_normal(flat.shape) * (high - low) * steps[:, None]
            moved = np.clip(flat + np.where(mask, move, 0.0), low, high)
            rows[name] = np.where(mask, moved, flat).astype(flat.dtype).reshape(rows[name].shape)

    def _score(self, log: _Log, rows: Tensors) -> NDArray[np.float64]:
        return self._compared(log, rows).excess

    # -- Keeping ------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of base rows."""
        return self.batching.count(self.base)

    def _try(
        self, name: str, batches: Sequence[Tensors] | Iterator[Tensors], *, own_tolerances: bool = False
    ) -> None:
        """Compare batches; `own_tolerances` derives tolerances from them, since rounding grows with the numbers."""
        log = self._log(name)
        for rows in batches:
            self._compared(log, rows, own_tolerances=own_tolerances)
            if self._done(_SHARE):
                break
        self._close(log)

    def _compared(self, log: _Log, rows: Tensors, *, keep: bool = True, own_tolerances: bool = False) -> Verdicts:
        tolerances = self.pair.tolerances(rows, self.outputs, *self.limits) if own_tolerances else None
        verdicts = self.comparer(rows, tolerances)
        total = len(verdicts.excess)
        log.rows += total
        log.mismatches += int((verdicts.excess > 1).sum())
        if moved := self._moved_by_rounding(rows, verdicts.excess > 1):
            log.messages[_ROUNDING] = log.messages.get(_ROUNDING, 0) + moved
        log.ties += verdicts.ties
        log.both_refused += verdicts.both_refused
        for text, count in verdicts.refused.items():
            log.messages[text] = log.messages.get(text, 0) + count
        if total:
            log.worst = max(log.worst or 0.0, float(verdicts.excess.max()))
        if keep:
            for row in np.argsort(-verdicts.excess)[:SAVED_ROWS]:
                if verdicts.excess[row] > 0:
                    one = self.batching.rows(rows, int(row), int(row) + 1)
                    log.suspects.append((float(verdicts.excess[row]), one))
            log.suspects = sorted(log.suspects, key=lambda entry: -entry[0])[:SAVED_ROWS]
        if self.on_progress:
            self.on_progress(min(100, int(100 * self.budget.spent(self.comparer.rows))), 100)
        return verdicts

    def _moved_by_rounding(self, rows: Tensors, off: NDArray[np.bool_]) -> int:
        """How many of the rows that are off the rounding of the input moves, whatever the conversion does."""
        if self.pair.accept_rounding or not off.any() or not self.pair.feeds.changed(rows):
            return 0
        picked = {n: t[off] if t.ndim and len(t) == len(off) else t for n, t in rows.items()}
        try:
            truth, cast = (self.pair.run_source(tensors) for tensors in (picked, self.pair.feeds.as_cast(picked)))
        except SourceError:
            return 0
        return int(
            row_differences(
                truth, cast, self.pair.source.roles, self.comparer.tolerances, int(off.sum())
            ).off.sum()
        )

    def _close(self, log: _Log) -> None:
        """Look again at the worst rows of a category, by the rounding of these very rows.

        Rounding on a row far from the ordinary ones may be larger than on those that tolerances come from.
        """
        if not log.rows:
            self.logs.remove(log)
        mismatches = [rows for excess, rows in log.suspects if 1 < excess < np.inf]
        certain = [entry for entry in log.suspects if entry[0] == np.inf]
        if mismatches:
            joined = self.batching.join(mismatches)
            own = self.comparer(joined, self.pair.tolerances(joined, self.outputs, *self.limits)).excess
            again = [
                (min(excess, float(now)), rows)
                for (excess, rows), now in zip(
                    [entry for entry in log.suspects if 1 < entry[0] < np.inf], own, strict=True
                )
            ]
            log.suspects = sorted([*certain, *again], key=lambda entry: -entry[0])
            log.worst = log.suspects[0][0]
            if log.worst <= 1:
                log.messages["out of the tolerance of ordinary rows, within the rounding of their own"] = (
                    log.mismatches
                )
                log.mismatches = 0
        self.worst = sorted([*self.worst, *log.suspects], key=lambda entry: -entry[0])[: 4 * SAVED_ROWS]

    def save(self, path: Path) -> int:
        """Write the worst rows as named arrays; how many they were.

        Raises:
            OutputError: the file cannot be written.
        """
        rows = [tensors for _, tensors in self.worst[:SAVED_ROWS]]
        joined = self.batching.join(rows)
        plain = {name: array.astype(str) if array.dtype == object else array for name, array in joined.items()}
        with staged_path(path) as staged, writing(path), staged.open("wb") as file:
            np.savez(file, allow_pickle=False, **plain)
        return len(rows)

    def _log(self, name: str) -> _Log:
        self.logs.append(_Log(name))
        return self.logs[-1]

    def _done(self, share: float) -> bool:
        return self.budget.spent(self.comparer.rows) >= share

    def _floats(self) -> list[str]:
        """Inputs whose rows are floats: they are searched in the dtype in which they came."""
        return [spec.name for spec in self.specs if self.base[spec.name].dtype.kind == "f" and self._in_rows(spec)]

    def _numbers(self) -> list[str]:
        """These, and inputs of whole numbers that are no categories and no indices."""
        whole = [
            spec.name
            for spec in self.specs
            if spec.dtype in ("float32", "float64")
            and self.base[spec.name].dtype.kind in "iu"
            and self._in_rows(spec)
        ]
        return [*self._floats(), *whole]

    def _in_rows(self, spec: TensorSpec) -> bool:
        """Whether an input has a place along its first axis for each row, where numbers can be changed."""
        return self.batching.axes.get(spec.name) == 0 and spec.name not in self.batching.each

    def _cycled(self, tensors: Tensors, count: int) -> Tensors:
        """So many rows, as copies, in random order."""
        picked = np.resize(self.rng.permutation(self.batching.count(tensors)), count)
        return {n: t.copy() for n, t in self.batching.take(tensors, picked).items()}


def _neighbours(marks: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Each mark, and the two numbers of the dtype on either side."""
    if dtype.kind in "iu":
        held = marks[np.abs(marks) < np.iinfo(dtype).max / 2]
        return np.unique(np.concatenate([np.floor(held) + step for step in (-1, 0, 1, 2)])).astype(dtype)
    middle = np.unique(marks.astype(dtype))
    around = [middle]
    for direction in (-np.inf, np.inf):
        near = np.nextafter(middle, dtype.type(direction))
        around += [near, np.nextafter(near, dtype.type(direction))]
    return np.stack(around, axis=1).reshape(-1)


def _landmarks(domain: Domain) -> Iterator[tuple[int, NDArray[np.float64]]]:
    yield from enumerate(domain.landmarks)
    for column, inner in enumerate(domain.columns):
        for values in inner.landmarks:
            yield column, values


def _range(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and greatest value of each column, and half as much again beyond."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    flat = np.where(np.isfinite(flat), flat, np.nan)
    low, high = np.nanmin(flat, axis=0), np.nanmax(flat, axis=0)
    low, high = np.nan_to_num(low), np.nan_to_num(high)
    room = np.maximum((high - low) / 2, 1e-3 * np.maximum(np.abs(high), 1e-3))
    return low - room, high + room


def _within(row: NDArray[Any], low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
    flat = row.reshape(-1).astype(np.float64)
    return flat.shape == low.shape and bool(np.all((flat >= low) & (flat <= high)))


def _middle(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    return (first.astype(np.float64) / 2 + second.astype(np.float64) / 2).astype(first.dtype)


def _along(mask: NDArray[np.bool_], tensor: NDArray[Any]) -> NDArray[np.bool_]:
    return mask.reshape(-1, *([1] * (tensor.ndim - 1)))
