"""Accuracy drift: the quality of both models on labelled rows, chunk by chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import DataError, UsageError, require
from onnxtool.models.rows.data import UNNAMED
from onnxtool.models.rows.stream import single_column
from onnxtool.models.signature import Role, Tensors
from onnxtool.reports.model import Flips, GroupQuality, LabelDrift, McNemar, Metric
from onnxtool.validators.drift.significance import (
    Interval,
    auc_influence,
    bootstrap,
    clopper_pearson,
    mcnemar,
    paired_accuracy,
    paired_mean,
)

ALLOWED_DRIFT = 1e-3
"""How much of a score (accuracy, F1, AUC, R²), or of an error relative to the source's, may be lost."""

MOST_GROUPS = 100
"""A column with more values than this is no grouping; it is a number or an identifier."""

BUFFERED = 2**22
"""Numbers kept of each model, for metrics that need all rows at once. Beyond, a random sample of rows is kept."""

_BINS = 2048  # rows are drawn in so many bundles at most, so that a bootstrap of a million rows takes a second

_ROUNDING = 1e-12  # of a score's own arithmetic

Pair: TypeAlias = tuple[float, float]
_Triple: TypeAlias = tuple[str, str, str, str]  # group, truth, class by the source, class by ONNX


class LabelColumns:
    """The columns of the user's rows that say how good a model is: labels and groups.

    Args:
        labels: A column of the data, or a file of labels alone.
        group: A column of the data, if rows are grouped.
        data: The first rows.
        data_path: Where they come from.

    Attributes:
        origin: Where the labels come from.

    Raises:
        DataError: there is neither such a column nor such a file, or the file holds several columns.
        UsageError: there is no such column of groups.
    """

    def __init__(self, labels: str, group: str | None, data: Tensors, data_path: str) -> None:
        self._labels, self._group = labels, group
        self._file = None
        if group is not None and group not in data:
            raise UsageError(f"--group {group}: no such column. Columns: {_columns(data)}.")
        if labels in data:
            self.origin = f"column {labels!r} of {data_path}"
            return
        if not Path(labels).is_file():
            raise DataError(
                f"--labels {labels}: neither a column of the data nor a file. Columns: {_columns(data)}."
            )
        self._file = single_column(labels)
        self.origin = f"{labels} ({self._file.name})" if self._file.name != UNNAMED else labels

    def take(self, data: Tensors, rows: int, read: Collection[str]) -> tuple[Tensors, Tensors]:
        """The next rows without their labels, and `labels` and `groups` for them.

        Args:
            data: The rows as read.
            rows: How many they are.
            read: Columns that the model reads, which stay though they group the rows.
        """
        rest = dict(data)
        labels = self._file.take(rows) if self._file else rest.pop(self._labels)
        auxiliary = {"labels": labels.reshape(len(labels), -1)[:, 0]}
        if self._group is not None:
            auxiliary["groups"] = data[self._group].reshape(len(data[self._group]), -1)[:, 0]
            if self._group not in read:
                rest.pop(self._group, None)
        return rest, auxiliary

    def finish(self) -> None:
        """Check that no label is left over.

        Raises:
            DataError: there are more labels than rows.
        """
        if self._file and (left := self._file.rest()):
            raise DataError(f"{self.origin}: {left} labels are left over: there are fewer rows.")


def _columns(data: Tensors) -> str:
    return ", ".join(name or "one array" for name in data) or "none: give --data"


def label_drift(
    labels: NDArray[Any], origin: str, *, source: Tensors, onnx: Tensors, roles: Mapping[str, Role]
) -> LabelDrift:
    """Measure both models on all rows at once; see `Quality`."""
    quality = Quality(origin, roles)
    quality.update(source, onnx, {"labels": labels})
    return quality.result()


class Quality:
    """Compares the answers of both models with the labels, by scikit-learn's metrics.

    Classes are counted, so that memory does not grow with the rows; of probabilities and numbers at most `BUFFERED`
    are kept.

    Args:
        origin: Where the labels come from.
        roles: The role of each output. Probabilities without a label number their classes from 0.
        grouped_by: Name of the column that groups the rows, if one does.
    """

    def __init__(self, origin: str, roles: Mapping[str, Role], grouped_by: str | None = None) -> None:
        self._origin, self._grouped_by = origin, grouped_by
        self._label = next((name for name, role in roles.items() if role == "label"), None)
        self._probabilities = next((name for name, role in roles.items() if role == "probabilities"), None)
        self._classifies = bool(self._label or self._probabilities)
        self._rows = 0
        self._counts: Counter[_Triple] = Counter()
        self._groups: set[str] = set()
        self._sample = _Sample()

    def update(self, source: Tensors, onnx: Tensors, auxiliary: Tensors) -> None:
        """Take in the next rows.

        Args:
            source: The source's outputs for the rows.
            onnx: The ONNX model's outputs for the rows, under the same names.
            auxiliary: `labels`, the truth, and `groups`, where rows are grouped, [rows] each.

        Raises:
            DataError: the number of labels is not the number of rows.
            UsageError: no output can be compared with labels, or there are too many groups.
        """
        rows = len(next(iter(source.values())))
        labels, groups = auxiliary["labels"], auxiliary.get("groups")
        if len(labels) != rows:
            raise DataError(f"{self._origin}: {len(labels)} labels for {rows} rows.")
        grouping = _text(groups) if groups is not None else np.full(rows, "", dtype=object)
        self._groups.update(np.unique(grouping.astype(str)).tolist())
        if len(self._groups) > MOST_GROUPS:
            raise UsageError(
                f"--group {self._grouped_by}: more than {MOST_GROUPS} different values. "
                "Group by a column of categories, or cut the numbers into ranges first."
            )
        self._rows += rows
        if self._classifies:
            truth = _text(labels)
            first, second = (self._predicted(outputs) for outputs in (source, onnx))
            self._counts.update(_triples(grouping, truth, first, second))
            if self._probabilities in source and self._probabilities in onnx:
                name = str(self._probabilities)
                self._sample.add({"truth": truth, "source": source[name], "onnx": onnx[name]})
            return
        name = next((n for n, value in source.items() if value.size == rows and value.dtype.kind == "f"), "")
        if name not in onnx or labels.dtype.kind not in "biuf":
            raise UsageError("--labels needs a classifier's label or probabilities, or one number a row to score.")
        numbers = {"truth": labels, "source": source[name], "onnx": onnx[name]}
        self._sample.add(
            {key: value.reshape(-1).astype(np.float64) for key, value in numbers.items()} | {"group": grouping}
        )

    def result(self) -> LabelDrift:
        """The quality over all rows so far.

        Raises:
            DataError: there were no rows.
            MissingExtraError: scikit-learn, or for groups fairlearn, is not installed.
        """
        if not self._rows:
            raise DataError("No rows were compared, so there is nothing to compare with the labels.")
        metrics, groups, notes = self._classification() if self._classifies else self._regression()
        flips = tests = None
        if self._classifies:
            changed = sum(n for (_, _, first, second), n in self._counts.items() if first != second)
            share = clopper_pearson(changed, self._rows)
            flips = Flips(count=changed, rows=self._rows, low=share.low, high=share.high)
            lost, won = self._discordant()
            tests = McNemar(source_only=lost, onnx_only=won, p_value=mcnemar(lost, won))
        return LabelDrift(
            labels=self._origin,
            task="classification" if self._classifies else "regression",
            rows=self._rows,
            metrics=metrics,
            flips=flips,
            mcnemar=tests,
            grouped_by=self._grouped_by,
            groups=groups,
            notes=notes,
            passed=all(metric.passed for metric in metrics) and all(group.passed for group in groups),
        )

    def _predicted(self, outputs: Tensors) -> NDArray[Any]:
        name = self._label or str(self._probabilities)
        if name not in outputs:
            raise UsageError(f"--labels: the ONNX model has no output {name!r} to compare with them.")
        return _text(outputs[name].reshape(-1) if self._label else outputs[name].argmax(axis=1))

    def _discordant(self) -> tuple[int, int]:
        lost = sum(n for (_, truth, a, b), n in self._counts.items() if a == truth != b)
        won = sum(n for (_, truth, a, b), n in self._counts.items() if b == truth != a)
        return lost, won

    def _classification(self) -> tuple[list[Metric], list[GroupQuality], list[str]]:
        scorers = require("sklearn.metrics", "sklearn")
        triples = list(self._counts)
        counts = np.fromiter(self._counts.values(), dtype=np.int64)
        group, truth, *predictions = (np.array(column, dtype=object) for column in zip(*triples, strict=True))
        classes = sorted({*truth, *predictions[0], *predictions[1]})

        def accuracy(true: Any, predicted: Any, sample_weight: Any) -> float:
            return float(scorers.accuracy_score(true, predicted, sample_weight=sample_weight))

        def f1(true: Any, predicted: Any, sample_weight: Any) -> float:
            return float(
                scorers.f1_score(
                    true, predicted, labels=classes, average="macro", sample_weight=sample_weight, zero_division=0
                )
            )

        codes = [np.searchsorted(classes, column) for column in (truth, *predictions)]
        drift = bootstrap(counts, lambda drawn: _f1(drawn, codes[0], codes[2]) - _f1(drawn, codes[0], codes[1]))
        exact = paired_accuracy(*self._discordant(), self._rows)
        metrics = [
            _score("accuracy", _pair(lambda value: accuracy(truth, value, counts), predictions), exact),
            _score("F1 (macro)", _pair(lambda value: f1(truth, value, counts), predictions), drift),
        ]
        confidence, notes = self._confidence(scorers, sorted(classes, key=_class_order))
        groups = self._by_group({"accuracy": accuracy}, (truth, *predictions), group, weights=counts)
        return metrics + confidence, groups, notes

    def _confidence(self, scorers: Any, classes: Sequence[str]) -> tuple[list[Metric], list[str]]:
        """AUC and log loss, where the classes of the probabilities' columns are known."""
        if not self._sample.arrays:
            return [], []
        sampled = self._sample.arrays
        # A probability of 0 in float64 may be 1e-9 in float32, which the logarithm would blow up.
        # And a sum of leaves may be rounded to 1.0000004, which is none.
        source, onnx = (sampled[side].astype(np.float32).clip(0, 1) for side in ("source", "onnx"))
        if self._label is None:
            classes = [str(place) for place in range(source.shape[1])]
        if len(classes) != source.shape[1]:
            reason = f"the rows show {len(classes)} classes and the probabilities have {source.shape[1]}"
        elif set(sampled["truth"]) != set(classes):
            reason = "not every class occurs among the labels"
        elif min(Counter(sampled["truth"].tolist()).values()) < 2:
            reason = "a class occurs only once among the labels"
        elif any(not np.allclose(array.sum(axis=1), 1, atol=1e-4) for array in (source, onnx)):
            reason = "the probabilities of a row do not add up to 1"
        else:
            return self._probabilistic(scorers, [source, onnx], classes), self._sampled()
        return [], [f"AUC and log loss are left out: {reason}."]

    def _probabilistic(
        self, scorers: Any, probabilities: Sequence[NDArray[Any]], classes: Sequence[str]
    ) -> list[Metric]:
        order = {name: place for place, name in enumerate(classes)}
        truth = np.array([order[name] for name in self._sample.arrays["truth"]], dtype=np.intp)
        shown = [p[:, 1] if len(classes) == 2 else p / p.sum(axis=1, keepdims=True) for p in probabilities]
        areas = _pair(lambda p: scorers.roc_auc_score(truth, p, multi_class="ovr", average="macro"), shown)
        influence = [auc_influence(truth, p) for p in probabilities]
        losses = _pair(lambda p: scorers.log_loss(truth, p, labels=range(len(classes))), probabilities)
        tiny = np.finfo(np.float32).eps
        each = [-np.log(np.clip(p[np.arange(len(p)), truth], tiny, 1 - tiny).astype(float)) for p in probabilities]
        return [
            _score("AUC", areas, paired_mean(influence[1] - influence[0], areas[1] - areas[0], "DeLong")),
            _error("log loss", losses, paired_mean(each[1] - each[0], losses[1] - losses[0], "paired t")),
        ]

    def _regression(self) -> tuple[list[Metric], list[GroupQuality], list[str]]:
        scorers = require("sklearn.metrics", "sklearn")
        sampled = self._sample.arrays
        truth, predictions = sampled["truth"], [sampled["source"], sampled["onnx"]]
        errors = {"RMSE": scorers.root_mean_squared_error, "MAE": scorers.mean_absolute_error}
        sums, counts = _bundles(truth, predictions)
        intervals = {name: bootstrap(counts, partial(_change, name, sums)) for name in _SUMS}
        metrics = [
            _error(name, _pair(partial(score, truth), predictions), intervals[name])
            for name, score in errors.items()
        ]
        if np.ptp(truth) > 0:
            scores = _pair(partial(scorers.r2_score, truth), predictions)
            metrics.insert(0, _score("R²", scores, intervals["R²"]))
        groups = self._by_group(errors, (truth, *predictions), sampled["group"])
        return metrics, groups, self._sampled()

    def _by_group(
        self,
        scorers: Mapping[str, Callable[..., float]],
        answers: Sequence[NDArray[Any]],
        groups: NDArray[Any],
        *,
        weights: NDArray[np.int64] | None = None,
    ) -> list[GroupQuality]:
        """Each group's quality, by fairlearn's MetricFrame."""
        if self._grouped_by is None:
            return []
        frames = require("fairlearn.metrics", "fairness")
        params = {name: {"sample_weight": weights} for name in scorers} if weights is not None else None
        truth, *predictions = answers
        before, after = (
            frames.MetricFrame(
                metrics=dict(scorers), y_true=truth, y_pred=value, sensitive_features=groups, sample_params=params
            ).by_group
            for value in predictions
        )
        found = []
        for group in before.index:
            chosen = groups == group
            rows = int(weights[chosen].sum() if weights is not None else chosen.sum())
            metrics = [
                # One answer in a small group weighs more than the allowance, and is no evidence.
                _score(name, pair, allowed=max(ALLOWED_DRIFT, 1 / rows))
                if name == "accuracy"
                else _error(name, pair)
                for name in scorers
                for pair in [(float(before.loc[group, name]), float(after.loc[group, name]))]
            ]
            passed = all(metric.passed for metric in metrics)
            found.append(GroupQuality(group=str(group), rows=rows, metrics=metrics, passed=passed))
        return found

    def _sampled(self) -> list[str]:
        rows = len(self._sample.arrays["truth"])
        if rows == self._rows:
            return []
        return [f"Metrics that need all rows at once are of {rows:,} rows drawn at random."]


class _Sample:
    """Rows of several arrays: all of them, or a uniform random sample when they are many.

    Each row gets a random key, and the rows with the smallest are kept: Vitter's reservoir, a chunk at a time.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}
        self._keys = np.empty(0)
        self._pending: list[dict[str, NDArray[Any]]] = []
        self._rows_pending = 0
        self._rng = np.random.default_rng(0)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The rows kept."""
        self._settle()
        return self._arrays

    def add(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take in the next rows; each array's first axis counts them."""
        self._pending.append(arrays)
        self._rows_pending += len(arrays["truth"])
        if self._rows_pending > max(len(self._keys), 2**16):  # a copy for each doubling, not for each chunk
            self._settle()

    def _settle(self) -> None:
        if not self._pending:
            return
        parts = [self._arrays, *self._pending] if self._arrays else self._pending
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        keys = np.concatenate([self._keys, self._rng.random(self._rows_pending)])
        most = max(1, BUFFERED // max(1, joined["source"][0].size))
        if len(keys) > most:
            kept = np.sort(np.argpartition(keys, most - 1)[:most])
            keys, joined = keys[kept], {name: array[kept] for name, array in joined.items()}
        self._arrays, self._keys, self._pending, self._rows_pending = joined, keys, [], 0


_SUMS = ("R²", "RMSE", "MAE")


def _bundles(
    truth: NDArray[np.float64], predictions: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sums of what the errors are made of, in bundles of rows, and the number of rows of each bundle."""
    rows = len(truth)
    bundle = np.arange(rows) if rows <= _BINS else np.random.default_rng(0).integers(0, _BINS, rows)
    centred = truth - truth.mean()  # the variance of large numbers would drown in rounding
    parts = [np.ones(rows), centred, centred**2]
    for value in predictions:
        parts += [(value - truth) ** 2, np.abs(value - truth)]
    sums = np.stack([np.bincount(bundle, part) for part in parts], axis=1)
    counts = np.bincount(bundle)
    kept = counts > 0
    return sums[kept] / counts[kept, None], counts[kept]


def _change(name: str, means: NDArray[np.float64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """ONNX's error less the source's, for each draw."""
    rows, total, squares, source_2, source_1, onnx_2, onnx_1 = (drawn @ means).T
    if name == "MAE":
        return np.asarray((onnx_1 - source_1) / rows)
    if name == "RMSE":
        return np.asarray(np.sqrt(onnx_2 / rows) - np.sqrt(source_2 / rows))
    spread = np.maximum(squares - total**2 / rows, np.finfo(float).tiny)
    return np.asarray((source_2 - onnx_2) / spread)


def _f1(drawn: NDArray[np.int64], truth: NDArray[np.intp], predicted: NDArray[np.intp]) -> NDArray[np.float64]:
    """Macro F1 of each draw of counts, [draws, triples], as scikit-learn has it with zero_division=0."""
    classes = int(max(truth.max(), predicted.max())) + 1
    scores = np.zeros(len(drawn))
    for place in range(classes):
        hits = drawn[:, (truth == place) & (predicted == place)].sum(axis=1)
        seen = drawn[:, truth == place].sum(axis=1) + drawn[:, predicted == place].sum(axis=1)
        scores += np.where(seen > 0, 2 * hits / np.maximum(seen, 1), 0.0)
    return scores / classes


def _pair(score: Callable[[Any], float], both: Sequence[Any]) -> Pair:
    """A score of the source and of the ONNX model."""
    source, onnx = both
    return float(score(source)), float(score(onnx))


def _triples(*columns: NDArray[Any]) -> dict[_Triple, int]:
    """The count of each combination of values."""
    names, codes = zip(*(np.unique(column.astype(str), return_inverse=True) for column in columns), strict=True)
    sizes = [len(values) for values in names]
    combined, counts = np.unique(np.ravel_multi_index(codes, sizes), return_counts=True)
    places = np.unravel_index(combined, sizes)
    keys = zip(*(values[place].tolist() for values, place in zip(names, places, strict=True)), strict=True)
    return dict(zip(keys, counts.tolist(), strict=True))


def _text(values: NDArray[Any]) -> NDArray[Any]:
    """Classes as text: a file may hold 1, 1.0 or "1" for the class that the model calls 1."""
    distinct, places = np.unique(values.astype(str) if values.dtype == object else values, return_inverse=True)
    if distinct.dtype.kind == "b":
        distinct = distinct.astype(np.int64)
    names = [
        str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        for value in distinct.tolist()
    ]
    return np.array(names, dtype=object)[places.reshape(-1)]


def _class_order(name: str) -> tuple[float, str]:
    """Numbers by size, then text: the order in which classifiers keep their classes."""
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name


def _score(name: str, pair: Pair, interval: Interval | None = None, *, allowed: float = ALLOWED_DRIFT) -> Metric:
    """More is better: what is lost must stay within the allowance."""
    return _metric(name, pair, interval, allowed=allowed, lost=pair[0] - pair[1])


def _error(name: str, pair: Pair, interval: Interval | None = None) -> Metric:
    """Less is better: the error may grow by the allowance, relative to itself."""
    return _metric(name, pair, interval, allowed=ALLOWED_DRIFT * pair[0], lost=pair[1] - pair[0])


def _metric(name: str, pair: Pair, interval: Interval | None, *, allowed: float, lost: float) -> Metric:
    source, onnx = pair
    return Metric(
        name=name,
        source=source,
        onnx=onnx,
        difference=onnx - source,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        method=interval.method if interval else None,
        allowed=allowed,
        passed=lost <= allowed + _ROUNDING,
    )
