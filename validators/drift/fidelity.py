"""The loss of a model in lower precision: of quality where rows are labelled, else of agreement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxtool.models.signature import Role, Tensors
from onnxtool.reports.model import LabelDrift, Loss, Metric
from onnxtool.validators.drift.labels import Quality
from onnxtool.validators.drift.significance import clopper_pearson

QUALITY = 0.01
"""Largest loss of a score, or growth of an error relative to itself: by MLPerf's inference rules a model in lower
precision needs 99 % of the reference's accuracy."""

FLIPS = 0.01
"""Largest share of rows whose label may change."""

ERROR = 0.05
"""Largest root mean square difference of an output, in units of its standard deviation over the rows: 26 dB."""

_UNGATED = {"log loss"}  # a matter of calibration, which MLPerf does not check either
_ERRORS = {"RMSE", "MAE"}


@dataclass
class _Sums:
    """Sums over one output: count, values, their squares, and the squares of the differences."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    differences: float = 0.0

    def error(self) -> float:
        variance = self.squares / self.count - (self.total / self.count) ** 2 if self.count else 0.0
        # Rounding alone may make the variance of a constant output negative, or tiny.
        scale = max(variance, 1e-12 * self.squares / max(self.count, 1))
        if self.differences == 0:
            return 0.0
        return float(np.sqrt(self.differences / self.count / scale)) if scale > 0 else float("inf")


@dataclass
class Fidelity:
    """Compares a model in lower precision with its source, chunk by chunk.

    Args:
        roles: The roles of the outputs.
        allowed: Largest loss, for every measure alike; None takes each one's own.
        quality: Compares both with labels, if there are any.
    """

    roles: Mapping[str, Role]
    allowed: float | None = None
    quality: Quality | None = None
    _sums: dict[str, _Sums] = field(default_factory=dict)
    _flips: dict[str, list[int]] = field(default_factory=dict)

    def update(self, truth: Tensors, found: Tensors, auxiliary: Tensors) -> None:
        """Take in the next rows.

        Args:
            truth: The source's outputs, rows along the first axis.
            found: The model's, under the same names.
            auxiliary: `labels`, where there are any.
        """
        for name, expected in truth.items():
            other = found[name]
            role = self.roles.get(name, "values")
            if role == "label" or (role == "probabilities" and expected.shape[-1] > 1):
                # NaN has no largest element: it must not count as the first class
                first, second = (
                    _classes(array) if role == "probabilities" else array for array in (expected, other)
                )
                flips = self._flips.setdefault(name, [0, 0])
                flips[0] += int(
                    (first.reshape(len(first), -1) != second.reshape(len(first), -1)).any(axis=1).sum()
                )
                flips[1] += len(first)
            if expected.dtype.kind == "f":
                self._add(name, expected.astype(np.float64), other.astype(np.float64))
        # Metrics of quality are not defined on NaN; the error, which is infinite then, fails the model.
        if self.quality and np.isfinite(self.error()):
            self.quality.update(truth, found, auxiliary)

    def _add(
        self, name: str, expected: np.typing.NDArray[np.float64], other: np.typing.NDArray[np.float64]
    ) -> None:
        sums = self._sums.setdefault(name, _Sums())
        finite = np.isfinite(expected)
        sums.count += int(finite.sum())
        sums.total += float(expected[finite].sum())
        sums.squares += float((expected[finite] ** 2).sum())
        with np.errstate(invalid="ignore", over="ignore"):
            differences = float(((other[finite] - expected[finite]) ** 2).sum())
        sums.differences += differences if np.isfinite(differences) else float("inf")

    def error(self) -> float:
        """The largest relative root mean square error of an output; of labels alone, the share that flips."""
        errors = [sums.error() for sums in self._sums.values()]
        return max(errors or [flips / rows for flips, rows in self._flips.values()], default=0.0)

    def drift(self) -> LabelDrift | None:
        """The quality of both. A measure passes when the worse end of its interval is within the allowed loss."""
        if self.quality is None or not np.isfinite(self.error()):
            return None
        drift = self.quality.result()
        metrics = [_gated(metric, QUALITY if self.allowed is None else self.allowed) for metric in drift.metrics]
        return drift.model_copy(update={"metrics": metrics, "passed": all(metric.passed for metric in metrics)})

    def losses(self, drift: LabelDrift | None) -> list[Loss]:
        """The losses: of quality where there are labels, else of agreement.

        Args:
            drift: What `drift` returned.
        """
        if drift is not None:
            return [_loss_of(metric) for metric in drift.metrics]
        flips = [
            _loss(
                f"labels that flip ({name})", count / rows, self.allowed, FLIPS, clopper_pearson(count, rows).high
            )
            for name, (count, rows) in self._flips.items()
        ]
        gated = {name for name in self._sums if not flips or self.roles.get(name, "values") == "values"}
        errors = [
            _loss(f"relative error of {name}", sums.error(), self.allowed, ERROR)
            for name, sums in self._sums.items()
            if name in gated
        ]
        return flips + errors


def _classes(probabilities: np.typing.NDArray[np.generic]) -> np.typing.NDArray[np.intp]:
    return np.where(np.isnan(probabilities).any(axis=-1), -1, probabilities.argmax(axis=-1))


def _loss(measure: str, value: float, allowed: float | None, default: float, high: float | None = None) -> Loss:
    limit = default if allowed is None else allowed
    return Loss(measure=measure, value=value, high=high, allowed=limit, passed=value <= limit)


def _lost(metric: Metric) -> tuple[float, float]:
    """The loss, and the worse end of its interval, both relative for an error."""
    if metric.name in _ERRORS | _UNGATED:
        unit = abs(metric.source) or 1.0
        return metric.difference / unit, (metric.difference if metric.high is None else metric.high) / unit
    return 0.0 - metric.difference, 0.0 - (metric.difference if metric.low is None else metric.low)


def _gated(metric: Metric, allowed: float) -> Metric:
    if metric.name in _UNGATED:
        return metric.model_copy(update={"allowed": None, "passed": True})
    unit = abs(metric.source) if metric.name in _ERRORS else 1.0
    return metric.model_copy(update={"allowed": allowed * unit, "passed": _lost(metric)[1] <= allowed})


def _loss_of(metric: Metric) -> Loss:
    value, high = _lost(metric)
    unit = abs(metric.source) or 1.0
    allowed = metric.allowed / unit if metric.allowed is not None and metric.name in _ERRORS else metric.allowed
    kind = "growth of" if metric.name in _ERRORS | _UNGATED else "loss of"
    return Loss(measure=f"{kind} {metric.name}", value=value, high=high, allowed=allowed, passed=metric.passed)
