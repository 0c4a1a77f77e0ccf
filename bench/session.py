"""A cell's session: its options, its engine, and how it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from onnxtool.bench import engines
from onnxtool.bench.plan import CUDA_GRAPHS, CellPlan
from onnxtool.bench.timing import Run
from onnxtool.errors import UsageError
from onnxtool.models.onnx import providers, settings
from onnxtool.models.signature import Tensors
from onnxtool.reports.model import Placement

_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda", "DmlExecutionProvider": "dml"}
"""Names that IO binding has for the memory of a provider; the others work in the host's."""


def open_session(model: str, plan: CellPlan, entries: Mapping[str, str] | None = None) -> Any:
    """An `onnxruntime.InferenceSession` with a cell's settings, and with a record of its placement.

    Args:
        model: Path of the ONNX file.
        plan: The cell; its options are those of `settings`.
        entries: Further entries.

    Raises:
        UnavailableError: the provider cannot be used here.
        UsageError: the provider has no such option.
    """
    options = session_options(plan, entries)
    return providers.make_session(model, plan.provider, options, provider_options(plan))


def session_options(plan: CellPlan, entries: Mapping[str, str] | None = None) -> Any:
    """`onnxruntime.SessionOptions` of the plan; all others are ONNX Runtime's defaults."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    providers.record_placement(options)
    settings.apply({**(entries or {}), **dict(plan.options)}, options)
    if plan.threads is not None:
        options.intra_op_num_threads = plan.threads
    return options


def profiled_placement_of(model: str, plan: CellPlan, inputs: Tensors, folder: Path) -> list[Placement]:
    """The placement by `providers.profiled_placement`, from a new session with its profile in a temporary folder."""
    options = session_options(plan)
    providers.profile_to(options, folder)
    session = providers.make_session(model, plan.provider, options, provider_options(plan))
    return providers.profiled_placement(session, inputs)


def provider_options(plan: CellPlan) -> dict[str, str]:
    """The options that are the provider's own."""
    return settings.provider_options(dict(plan.options))


def with_engine(model: str, plan: CellPlan, inputs: Tensors) -> tuple[CellPlan, float | None]:
    """Build the provider's engine into a cache, if it builds one.

    Args:
        model: Path of the ONNX file.
        plan: The cell.
        inputs: One batch: an engine is built for its shapes.

    Returns:
        The plan with the options that find the engine, and the time in s of building it: session creation and
        first run. None where the engine was in the cache, or the provider has none.
    """
    cache = engines.cache_of(model, plan, inputs)
    if cache is None:
        return plan, None
    cached = replace(plan, options=tuple(sorted({**dict(plan.options), **cache.options}.items())))
    if cache.is_filled():
        return cached, None
    start = perf_counter_ns()
    # Without a CUDA graph, which would be captured from arrays that go away.
    plain = tuple(pair for pair in cached.options if pair[0] not in CUDA_GRAPHS)
    open_session(model, replace(cached, options=plain)).run(None, inputs)
    return cached, (perf_counter_ns() - start) / 1e9


def replays(plan: CellPlan) -> bool:
    """Whether a CUDA graph is recorded and replayed, which reads its inputs from one place."""
    return any(dict(plan.options).get(name, "0").lower() in ("1", "true") for name in CUDA_GRAPHS)


def runs_of(session: Any, model: str, plan: CellPlan, batches: Sequence[Tensors]) -> list[Run]:
    """The functions by which each caller runs the session: directly, or through its own bindings.

    A bound run has a binding for each batch: their inputs lie on the device.

    Args:
        session: Of the cell.
        model: Path of its file.
        plan: The cell.
        batches: Those that will be run, of the same shapes; one where a CUDA graph `replays`.

    Raises:
        UsageError: an input is of strings, which cannot be bound.
    """
    if not plan.io_binding:
        return [session.run] * plan.concurrency
    if any(array.dtype.kind in "OU" for array in batches[0].values()):
        raise UsageError("IO binding takes numbers; this model has inputs of strings. Leave it out.")
    outputs = _outputs(model, batches[0]) if replays(plan) else None
    device = _DEVICES.get(plan.provider, "cpu")
    number = int(dict(plan.options).get("device_id", "0"))
    call = session.run_with_iobinding

    def bound() -> Run:
        bindings = {id(batch): _binding(session, device, number, batch, outputs) for batch in batches}
        return lambda _, batch: call(bindings[id(batch)])

    return [bound() for _ in range(plan.concurrency)]


def _binding(session: Any, device: str, number: int, inputs: Tensors, outputs: Tensors | None) -> Any:
    import onnxruntime

    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, device, number))
    for output in session.get_outputs():
        if outputs is None:
            binding.bind_output(output.name, device, number)
        else:
            kept = onnxruntime.OrtValue.ortvalue_from_numpy(outputs[output.name], device, number)
            binding.bind_ortvalue_output(output.name, kept)
    return binding


def _outputs(model: str, inputs: Tensors) -> Tensors:
    """What the model makes of a batch on the CPU: a CUDA graph writes to the same place in every run, so that it
    must be there, in the right shape, before the first."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=[providers.CPU])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))
