"""Execution providers: their names, how a session is made with one, and what it really ran."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import perf_counter_ns
from types import MappingProxyType
from typing import Any

from onnxtool.errors import ModelError, OutputError, UsageError, require
from onnxtool.models.onnx import settings
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.log import tidy
from onnxtool.models.signature import Tensors
from onnxtool.reports.model import Placement

CPU = "CPUExecutionProvider"

ON_CUDA = ("CUDAExecutionProvider", "TensorrtExecutionProvider")

_UNKNOWN_OPTION = re.compile(r"(?:Invalid \w+ EP option: |Unknown provider option: )\"?(\w+)")
"""What providers say that check their options themselves: OpenVINO, and those with ONNX Runtime's parser."""

PROFILE_NS = 50_000_000
PROFILE_RUNS = 50
"""A profile ends after this time or number of runs; it holds a million events at most."""

_PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
    "DmlExecutionProvider": "onnxruntime-directml",
    "QNNExecutionProvider": "onnxruntime-qnn",
}


class UnavailableError(Exception):
    """The provider cannot be used here; the message is the reason for the report."""


def make_session(
    model: str, provider: str, options: Any, provider_options: Mapping[str, str] = MappingProxyType({})
) -> Any:
    """An `onnxruntime.InferenceSession` on one provider.

    ONNX Runtime's own fallbacks are off: it would print a line and go on with the CPU. It still puts the
    nodes that the provider does not take on the CPU; `recorded_placement` shows them. TensorRT gets CUDA
    as a second provider, as ONNX Runtime advises, for the nodes that it does not take.

    Args:
        model: Path of the ONNX file.
        provider: Full name.
        options: `onnxruntime.SessionOptions`.
        provider_options: Options of the provider itself.

    Raises:
        UnavailableError: the provider is not in this build, cannot be set up here, or was dropped.
        UsageError: the provider has no such option.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if provider not in available:
        package = _PACKAGES.get(provider)
        remedy = f" Replace it: pip uninstall -y onnxruntime && pip install {package}" if package else ""
        raise UnavailableError(
            f"{provider} is not in this build of ONNX Runtime {onnxruntime.__version__}, which has "
            f"{', '.join(available)}.{remedy}"
        )
    if provider in ON_CUDA and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN of pip's nvidia-* packages are on no path of the system
    providers: list[tuple[str, dict[str, str]]] = [(provider, dict(provider_options))]
    if provider == "TensorrtExecutionProvider" and "CUDAExecutionProvider" in available:
        cuda_options = {name: value for name, value in provider_options.items() if name == "device_id"}
        providers.append(("CUDAExecutionProvider", cuda_options))
    try:
        session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        if unknown := _UNKNOWN_OPTION.search(str(error)):
            raise UsageError(f"{provider} has no option {unknown[1]!r}.") from error
        if provider == CPU or not _loads_on_cpu(model):
            raise
        raise UnavailableError(f"{provider} cannot be set up: {tidy(str(error))}") from error
    if provider not in session.get_providers():
        raise UnavailableError(f"ONNX Runtime {onnxruntime.__version__} dropped {provider}.")
    refuse_unknown(provider, provider_options, session.get_provider_options().get(provider, {}))
    return session


def refuse_unknown(provider: str, given: Mapping[str, str], taken: Mapping[str, str]) -> None:
    """Refuse options that a provider ignores.

    Args:
        provider: Full name.
        given: Options that it was given.
        taken: Options that it reports. Some report none, and refuse others themselves; the CPU has none.

    Raises:
        UsageError: it has no such option.
    """
    unknown = sorted(set(given) - set(taken))
    if unknown and (taken or provider == CPU):
        known = f"It has {', '.join(sorted(taken))}." if taken else "It has none."
        raise UsageError(f"{provider} has no option {unknown[0]!r}. {known}")


def _loads_on_cpu(model: str) -> bool:
    """Whether the model itself is sound, so that a failure elsewhere is the provider's."""
    import onnxruntime

    try:
        onnxruntime.InferenceSession(model, providers=[CPU])
    except Exception:
        return False
    return True


def record_placement(options: Any) -> None:
    """Turn on the record that `recorded_placement` reads.

    Measured with ONNX Runtime 1.32: making the session takes up to 3 % longer, a run takes the same time.
    Versions before 1.24.1 ignore the entry.
    """
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")


def recorded_placement(session: Any) -> list[Placement] | None:
    """The nodes that each provider took, or None where ONNX Runtime keeps no record.

    Args:
        session: Made with the options of `record_placement`.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    return _placements(
        (part.ep_name, f"{node.domain}.{node.op_type}" if node.domain else node.op_type)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    )


def profiled_placement(session: Any, inputs: Tensors) -> list[Placement]:
    """The kernels that each provider ran and their times, from a profile of at least two runs.

    Nodes are those after optimisation, so that fused nodes count once. The session is not to be used further.

    Args:
        session: Made with options that `profile_to` has seen.
        inputs: One batch.

    Raises:
        OutputError: ONNX Runtime could not write the profile.
    """
    deadline = perf_counter_ns() + PROFILE_NS
    for run in range(PROFILE_RUNS):
        session.run(None, inputs)
        if run and perf_counter_ns() > deadline:
            break
    file = Path(session.end_profiling())
    try:
        events = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ONNX Runtime does not say when it could not write
        raise OutputError(
            f"Cannot write ONNX Runtime's profile wholly to {file.parent}: is the disk full?"
        ) from error
    return placement_of_profile(events)


def profile_to(options: Any, folder: Path) -> None:
    """Turn on the profile that `profiled_placement` reads."""
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")


def placement_of_profile(events: Iterable[dict[str, Any]]) -> list[Placement]:
    """Read the events of ONNX Runtime's profile: a kernel that ran several times is one node.

    Times are those of the host. A provider that works asynchronously (CUDA) is seen to launch its kernels; what it
    computes shows where the host waits for it. The first time of each kernel is left out where there are more: it
    is slower, and differently so for each provider.
    """
    kernels: dict[str, tuple[str, str]] = {}
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event.get("args", {}).get("provider"):
            kernels[event["name"]] = (event["args"]["provider"], event["args"]["op_name"])
            times[event["name"]].append(float(event.get("dur", 0)))
    found = _placements(kernels.values())
    spent: Counter[str] = Counter()
    for name, durations in times.items():
        spent[kernels[name][0]] += sum(durations[1:] or durations)  # type: ignore[assignment]
    for part in found:
        part.kernels = part.nodes
        part.time_share = spent[part.provider] / total if (total := sum(spent.values())) else None
    return found


def cross_check(recorded: list[Placement], profiled: list[Placement]) -> tuple[list[Placement], list[str]]:
    """Compare the record of assigned nodes with the profile of the nodes that ran.

    Args:
        recorded: From `recorded_placement`.
        profiled: From `profiled_placement`.

    Returns:
        The record with the profile's kernels and times, and where the two disagree, a sentence each.
    """
    ran = {part.provider: part for part in profiled}
    merged = [
        part.model_copy(
            update={
                "kernels": ran[part.provider].kernels if part.provider in ran else 0,
                "time_share": ran[part.provider].time_share if part.provider in ran else (0.0 if ran else None),
            }
        )
        for part in recorded
    ]
    assigned = {part.provider for part in recorded}
    merged += [part.model_copy(update={"nodes": 0}) for part in profiled if part.provider not in assigned]
    return merged, [
        f"{part.provider} was assigned {part.nodes} nodes, but none of its kernels ran in a profile of some runs."
        if part.nodes
        else f"{part.provider} was assigned no node, but ran {part.kernels} kernels in a profile of some runs."
        for part in merged
        if not part.nodes or not part.kernels
    ]


def require_nodes(provider: str, placement: list[Placement]) -> None:
    """Refuse to call something a measurement of a provider that ran none of the model.

    The CPU is exempt: a model that is all constants has no nodes left.

    Raises:
        UnavailableError: the provider has no node.
    """
    if provider == CPU or any(part.provider == provider for part in placement):
        return
    others = ", ".join(f"{part.nodes} on {part.provider}" for part in placement)
    raise UnavailableError(f"{provider} took none of the model's nodes ({others or 'it has none'}).")


def _placements(nodes: Iterable[tuple[str, str]]) -> list[Placement]:
    operators: dict[str, Counter[str]] = defaultdict(Counter)
    for provider, operator in nodes:
        operators[provider][operator] += 1
    return [
        Placement(provider=provider, nodes=counts.total(), operators=dict(counts.most_common()))
        for provider, counts in operators.items()
    ]


def session_on(
    model: OnnxModel, provider: str, options: Mapping[str, str] = MappingProxyType({})
) -> tuple[Any, list[str]]:
    """A session on one provider, and which of the model's nodes it leaves to others.

    Args:
        model: The ONNX model.
        provider: Full name of the provider.
        options: As `settings` has them.

    Raises:
        ModelError: ONNX Runtime refuses the model.
        UsageError: the provider cannot be used here, or takes none of the nodes.
    """
    settings.check(options, [provider], model.proto.graph)
    chosen = settings.options_for(options, provider)
    own = settings.provider_options(chosen)
    if provider == CPU:
        refuse_unknown(provider, own, {})
        return model.session(chosen), []
    session_options = require("onnxruntime", "cpu").SessionOptions()
    session_options.log_severity_level = 3
    settings.apply(chosen, session_options)
    record_placement(session_options)
    try:
        session = make_session(str(model.path), provider, session_options, own)
        placed = recorded_placement(session) or []
        if placed:
            require_nodes(provider, placed)
    except UnavailableError as error:
        raise UsageError(f"{model.path} cannot be verified on {provider}. {error}") from error
    except UsageError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ModelError(f"ONNX Runtime refuses {model.path}: {tidy(str(error))}") from error
    others = [part for part in placed if part.provider != provider]
    return session, [f"{part.nodes} nodes ran on {part.provider} instead of {provider}." for part in others]
