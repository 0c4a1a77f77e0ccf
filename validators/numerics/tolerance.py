"""The largest difference between two numbers that counts as equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from onnxtool.errors import OnnxtoolError, UsageError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.rows.batches import Batching
from onnxtool.models.signature import Tensors
from onnxtool.reports.model import Tolerance
from onnxtool.validators.numerics.rounding import UNIT_ROUNDOFF, Noise, rounding_noise

# By the coarser dtype of the two. float32 allows about a thousand roundings (2^-24 each) of the largest term,
# which deep networks need when two runtimes sum in another order; half precisions allow about ten of theirs.
_DEFAULTS = {
    "bfloat16": (2e-2, 1e-2),
    "float16": (1e-2, 1e-3),
    "float32": (1e-4, 1e-5),
    "float64": (1e-7, 1e-9),
}
PRECISION = tuple(_DEFAULTS)
"""Floating dtypes from the coarsest to the finest."""
_HALF: Mapping[str, Literal["float16", "bfloat16"]] = {"float16": "float16", "bfloat16": "bfloat16"}

MARGIN = 10.0
"""Times the noise that was measured: for rows that were not, and for approximations of a runtime's own."""

QUANTIZED_MARGIN = 4.0
"""The same where steps of whole numbers make the noise, which no runtime has in a way of its own."""

_ROWS = 32
_LOOKED_AT = 4096  # among so many rows the extreme ones are sought
_ELEMENTS = 2**15
_LARGEST_BYTES = 2**28  # copies of a larger model take minutes and gigabytes

Limit: TypeAlias = float | Mapping[str, float] | None
"""A tolerance of the user's: one for all outputs, or by the output's name, with `*` for the others."""


@dataclass(frozen=True, slots=True)
class Tolerances:
    """The sources of the tolerance of each output.

    Attributes:
        rtol: The user's, in units of |source|.
        atol: The user's.
        derived: By the output's name, where its rounding noise could be measured.
        reason: Why nothing was derived, if so.
    """

    rtol: Limit = None
    atol: Limit = None
    derived: Mapping[str, Tolerance] = field(default_factory=dict)
    reason: str = ""

    def check(self, outputs: Sequence[str]) -> None:
        """Check that the outputs that the user named exist.

        Raises:
            UsageError: there is none of that name.
        """
        for option, given in (("--rtol", self.rtol), ("--atol", self.atol)):
            for name in given if isinstance(given, Mapping) else ():
                if name not in (*outputs, "*"):
                    raise UsageError(
                        f"{option} {name}=...: there is no such output. Outputs: {', '.join(outputs)}."
                    )

    def complete(self, outputs: Iterable[str]) -> bool:
        """Whether the user gave both parts for every output, so that nothing needs to be derived."""
        return all(None not in (limit(self.rtol, name), limit(self.atol, name)) for name in outputs)

    def of(self, name: str, source_dtype: str, onnx_dtype: str) -> Tolerance:
        """The tolerance of an output, as the user says, else derived, else by dtype.

        Args:
            name: The output's name.
            source_dtype: Dtype of the source's output.
            onnx_dtype: Dtype of the ONNX model's output.
        """
        rtol, atol = limit(self.rtol, name), limit(self.atol, name)
        default = self.derived.get(name)
        # The graph's noise does not apply to a source that is less precise than the graph.
        if default is None or coarser(source_dtype, onnx_dtype) != onnx_dtype:
            found = tolerance(source_dtype, onnx_dtype, rtol, atol)
            return (
                found.model_copy(update={"reason": f"{found.reason}; {self.reason}"})
                if self.reason and found.atol
                else found
            )
        if default.half and coarser(source_dtype, default.half) == source_dtype:
            default = default.model_copy(update={"half": None})
        if rtol is None and atol is None:
            return default
        return Tolerance(
            rtol=default.rtol if rtol is None else rtol,
            atol=default.atol if atol is None else atol,
            reason="given by the user"
            if None not in (rtol, atol)
            else f"given by the user, the rest {default.reason}",
        )


def limit(given: Limit, name: str) -> float | None:
    """The user's tolerance for one output."""
    return given.get(name, given.get("*")) if isinstance(given, Mapping) else given


def coarser(first: str, second: str) -> str:
    """The less precise of two floating dtypes; a dtype that is not floating yields to the other."""
    known = [name for name in (first, second) if name in PRECISION]
    return min(known, key=PRECISION.index) if known else first


def tolerance(
    source_dtype: str, onnx_dtype: str, rtol: float | None = None, atol: float | None = None
) -> Tolerance:
    """The tolerance for an output, by dtype where the user gave none.

    Args:
        source_dtype: Dtype of the source's output.
        onnx_dtype: Dtype of the ONNX model's output.
        rtol: Relative tolerance of the user's, in units of |source|.
        atol: Absolute tolerance of the user's.
    """
    dtype = coarser(source_dtype, onnx_dtype)
    if dtype not in _DEFAULTS:
        return Tolerance(rtol=0.0, atol=0.0, reason=f"{onnx_dtype} must be equal")
    default_rtol, default_atol = _DEFAULTS[dtype]
    if rtol is None and atol is None:
        return Tolerance(rtol=default_rtol, atol=default_atol, reason=f"default for {dtype}")
    return Tolerance(
        rtol=default_rtol if rtol is None else rtol,
        atol=default_atol if atol is None else atol,
        reason="given by the user"
        if None not in (rtol, atol)
        else f"given by the user, the rest default for {dtype}",
    )


def derive(model: OnnxModel, feeds: Tensors, *, tensor_cores: bool = False) -> tuple[dict[str, Tolerance], str]:
    """Derive the tolerance of each floating or quantized output from the rounding noise of the model's own graph.

    Args:
        model: The ONNX model.
        feeds: Rows of its inputs, of which a few are run.
        tensor_cores: Whether products of float32 are rounded to TF32 first, as NVIDIA's tensor cores do.

    Returns:
        Tolerances by the output's name, and why there are none, if so.
    """
    if model.size_bytes > _LARGEST_BYTES:
        return {}, "not derived: the model is too large to be run with noise"
    try:
        found = rounding_noise(model, _informative_rows(model, feeds), tensor_cores=tensor_cores)
    except OnnxtoolError as error:
        return {}, f"not derived: {error}"
    return {name: _of_noise(noise) for name, noise in found.items()}, "" if found else "not derived from the graph"


def _of_noise(noise: Noise) -> Tolerance:
    """A relative part that covers the largest elements, and an absolute one that covers the rest.

    Never more than what a thousand roundings of the largest element are, the dtype's default: a model that is
    less exact than this loses digits that its source keeps, which is drift.
    """
    if noise.steps:
        return _of_steps(noise)
    finite = np.isfinite(noise.clean)
    magnitude, deviation = np.abs(noise.clean[finite]), noise.deviations[finite]
    largest = float(magnitude.max(initial=0.0))
    margin = QUANTIZED_MARGIN if noise.quantized else MARGIN
    unit = UNIT_ROUNDOFF[noise.coarsest]
    large = (magnitude >= largest / 4) & (magnitude > 0)
    rtol = margin * max(float((deviation[large] / magnitude[large]).max(initial=0.0)), unit)
    most_rtol, most_atol = _DEFAULTS[noise.coarsest]
    if not noise.quantized:
        rtol = min(rtol, most_rtol)
    # A small element may be what is left of a large one: it is off by a rounding of that.
    atol = max(float((margin * deviation - rtol * magnitude).max(initial=0.0)), margin * unit * largest)
    terms, node = noise.longest
    reason = (
        f"derived: rounding moves values up to {largest:.3g} by up to {deviation.max(initial=0.0):.2g}, "
        f"times {margin:g}; the longest sum has {terms:,} terms{f' ({node})' if node else ''}"
    )
    bound = max(most_atol, most_rtol * largest)
    if atol > bound and not noise.quantized:
        atol, reason = bound, f"{reason}; limited to a thousand roundings"
    size = float(magnitude.mean()) if magnitude.size else 0.0
    mean = max(noise.mean, unit * size)
    half = _HALF.get(noise.coarsest)
    return Tolerance(rtol=rtol, atol=atol, reason=reason, noise=mean, magnitude=size, half=half)


def _of_steps(noise: Noise) -> Tolerance:
    """As many steps of the output's quantization as noise moves it, and one for the rows that were not run.

    Each quantization in between rounds. A runtime that computes in whole numbers throughout rounds differently from
    one that computes in float in between.
    """
    moved = float(noise.deviations.max(initial=0.0))
    reason = (
        f"derived: the output is quantized; rounding moves it by up to {moved:g} steps, and one more is allowed"
    )
    return Tolerance(rtol=0.0, atol=moved + 1, reason=reason, noise=max(noise.mean, 1 / max(noise.clean.size, 1)))


def _informative_rows(model: OnnxModel, feeds: Tensors) -> Tensors:
    """Half of them spread over all, half those with the most extreme numbers, whose rounding is the largest."""
    batching = Batching.of(model.inputs)
    total = min(batching.count(feeds), _LOOKED_AT)
    feeds = batching.rows(feeds, 0, total)
    each = max(1, sum(tensor.size for tensor in feeds.values()) // max(total, 1))
    count = batching.size or int(np.clip(_ELEMENTS // each, 4, _ROWS))
    extreme = np.zeros(total)
    for name, axis in batching.axes.items():
        tensor = np.moveaxis(feeds[name], axis, 0)
        if tensor.dtype.kind == "f":
            rows = np.nan_to_num(tensor.reshape(total, -1).astype(np.float64), posinf=0, neginf=0)
            score = np.abs(rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), np.finfo(float).tiny)
            extreme = np.maximum(extreme, score.max(axis=1, initial=0.0))
    spread = np.linspace(0, total - 1, count).astype(int)
    picked = np.resize(np.unique([*spread[::2], *np.argsort(-extreme)[: count // 2]]), count)
    return batching.take(feeds, picked)
