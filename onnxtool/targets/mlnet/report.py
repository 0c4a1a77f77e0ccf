"""Reports for a .NET deployment: may this model be used, and with which settings is it fastest in ML.NET?

`report --format mlnet` writes one; a bundle has one in its manifest, and the C# classes that read both.
"""

from __future__ import annotations

import datetime
from typing import Literal

from pydantic import Field

from onnxtool._version import __version__
from onnxtool.bench.plan import SOURCE
from onnxtool.reports.model import Cell, Check, Count, Environment, Percentile, Record, Report, Subject, Tolerance

MLNET_SCHEMA_VERSION: Literal["2.0"] = "2.0"

CPU_PACKAGE = "Microsoft.ML.OnnxRuntime"
GPU_PACKAGE = "Microsoft.ML.OnnxRuntime.Gpu"


class Settings(Record):
    """The settings by which ML.NET runs the model on a provider as it was measured."""

    package: str = Field(description="NuGet package with the native ONNX Runtime.")
    gpu_device_id: int | None = Field(default=None, description="Argument of ApplyOnnxModel: the CUDA device.")
    fallback_to_cpu: bool = Field(
        default=False,
        description="Argument of ApplyOnnxModel: true would run on the CPU, silently, where CUDA fails.",
    )
    intra_op_num_threads: Count | None = Field(
        default=None, description="Property of OnnxSessionOptions; null leaves it to ONNX Runtime."
    )
    create_session_options: bool = Field(
        default=False,
        description="Whether the provider (TensorRT) needs the delegate OnnxSessionOptions.CreateSessionOptions, "
        "which goes before gpu_device_id and fallback_to_cpu.",
    )


class Timing(Record):
    """Times of one run of the model, without what ML.NET adds. They differ each time that one measures."""

    samples: Count
    session_s: float | None = Field(description="Loading the model, up to the first run.")
    first_run_s: float | None
    mean_s: float
    percentiles: list[Percentile]
    rows_per_s: float | None
    peak_memory_bytes: Count | None


class Measurement(Record):
    """One provider with a batch size and a number of threads. ML.NET runs one row at a time: batch 1."""

    provider: str
    batch: Count
    threads: Count | None
    status: Literal["measured", "unavailable", "failed"]
    reason: str | None = None
    settings: Settings | None = Field(
        default=None, description="Null where ML.NET needs code of your own for the provider."
    )
    timing: Timing | None = None


class OutputDrift(Record):
    """The difference of an output of the ONNX model to the source's, over all rows compared."""

    name: str
    role: Literal["values", "label", "probabilities"]
    rows: Count
    mismatched_rows: Count
    mismatched_elements: Count
    label_flips: Count | None = None
    max_absolute: float | None = None
    max_relative: float | None = None
    tolerance: Tolerance
    problem: str | None = None
    passed: bool


class MlnetModel(Record):
    """One model. Deploy it when it `passed`, and its file has this hash."""

    name: str
    sha256: str
    size_bytes: Count
    passed: bool = Field(description="Whether every gate passed.")
    checks: list[Check]
    rows: Count | None = Field(default=None, description="Rows compared with the source; null where none were.")
    outputs: list[OutputDrift]
    measurements: list[Measurement]


class MlnetReport(Record):
    """The results of models that a deployment needs."""

    schema_version: Literal["2.0"] = MLNET_SCHEMA_VERSION
    tool_version: str = __version__
    command: str
    created: datetime.datetime
    environment: Environment
    models: list[MlnetModel]


def render(report: Report) -> str:
    """The report as JSON."""
    return mlnet_report(report).model_dump_json(indent=2) + "\n"


def mlnet_report(report: Report) -> MlnetReport:
    """The part of a report that a deployment needs."""
    return MlnetReport(
        command=report.command,
        created=report.created,
        environment=report.environment,
        models=[_model(subject) for subject in report.subjects],
    )


def settings(provider: str, threads: int | None) -> Settings | None:
    """The settings by which ML.NET uses a provider, or None where that needs the user's own code."""
    if provider == "CPUExecutionProvider":
        return Settings(package=CPU_PACKAGE, intra_op_num_threads=threads)
    if provider == "CUDAExecutionProvider":
        return Settings(package=GPU_PACKAGE, gpu_device_id=0, intra_op_num_threads=threads)
    if provider == "TensorrtExecutionProvider":
        return Settings(package=GPU_PACKAGE, intra_op_num_threads=threads, create_session_options=True)
    return None


def _model(subject: Subject) -> MlnetModel:
    parity = subject.parity
    return MlnetModel(
        name=subject.name,
        sha256=subject.model.sha256,
        size_bytes=subject.model.size_bytes,
        passed=all(check.passed for check in subject.checks),
        checks=subject.checks,
        rows=parity.rows if parity else None,
        outputs=[
            OutputDrift.model_validate({name: getattr(output, name) for name in OutputDrift.model_fields})
            for output in (parity.outputs if parity else [])
        ],
        measurements=[
            _measurement(cell)
            for cell in (subject.bench.cells if subject.bench else [])
            if cell.provider != SOURCE
        ],
    )


def _measurement(cell: Cell) -> Measurement:
    return Measurement(
        provider=cell.provider,
        batch=cell.batch,
        threads=cell.threads,
        status=cell.status,
        reason=cell.reason,
        settings=settings(cell.provider, cell.threads),
        timing=Timing(
            samples=cell.latency.samples,
            session_s=cell.session_s,
            first_run_s=cell.first_run_s,
            mean_s=cell.latency.mean_s,
            percentiles=cell.latency.percentiles,
            rows_per_s=cell.rows_per_s,
            peak_memory_bytes=cell.peak_memory_bytes,
        )
        if cell.latency
        else None,
    )
