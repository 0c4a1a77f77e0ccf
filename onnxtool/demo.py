"""`onnxtool demo`: a reference model of each framework, from source file to report."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from onnxtool import clock
from onnxtool.api import LoadArguments, Progress, bench, convert, verify
from onnxtool.errors import MissingExtraError
from onnxtool.files import writing
from onnxtool.reports.environment import environment
from onnxtool.reports.model import Report, Subject

BATCHES = (1, 32)
DURATION_S = 1.0


@dataclass(frozen=True, slots=True)
class Example:
    """A reference model, and how a user would point at it.

    Attributes:
        module: Module of `models.reference` whose `save` writes the source files.
        source: The file or folder of them to convert.
        data: Rows of its own, where the module writes some.
        labels: Column of the rows that holds the truth.
    """

    module: str
    source: str
    data: str | None = None
    labels: str | None = None


EXAMPLES = (
    Example("sklearn", "churn.joblib", "churn.csv", "churned"),
    Example("torch", "resnet.pt2"),
    Example("keras", "mobilenet.keras"),
    Example("tensorflow", "captioned"),
)


def run_demo(folder: Path, on_progress: Progress | None = None) -> Report:
    """Convert, verify and measure the examples of the frameworks that are installed.

    Args:
        folder: Where sources and ONNX models are written.
        on_progress: See `onnxtool.api.Progress`.

    Raises:
        OutputError: the folder cannot be made, or its files not be written.
        MissingExtraError: no framework is installed.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    subjects = []
    missing = None
    for example in EXAMPLES:
        try:
            module = import_module(f"onnxtool.models.reference.{example.module}")
            with writing(folder):
                module.save(folder)
            subjects.append(_run(example, folder, on_progress))
        except (MissingExtraError, ModuleNotFoundError) as error:
            missing = error
    if not subjects:
        raise MissingExtraError("The demo needs a framework: pip install 'onnxtool[all]'") from missing
    return Report(command="demo", created=clock.now(), environment=environment(), subjects=subjects)


def _run(example: Example, folder: Path, on_progress: Progress | None) -> Subject:
    source = folder / example.source
    model = folder / f"{source.stem}.onnx"
    data = folder / example.data if example.data else None
    trusted: LoadArguments = {"sandbox": None}  # the files are this process's own
    converted = convert(source, model, data=data, verify=False, on_progress=on_progress, **trusted).subjects[0]
    verified = verify(
        model, source, data=data, labels=example.labels, on_progress=on_progress, **trusted
    ).subjects[0]
    measured = bench(
        model,
        data=data,
        batches=BATCHES,
        duration=DURATION_S,
        source=str(source),
        on_progress=on_progress,
        **trusted,
    ).subjects[0]
    return converted.model_copy(
        update={
            "parity": verified.parity,
            "drift": verified.drift,
            "bench": measured.bench,
            "checks": [*verified.checks, *measured.checks],
        }
    )
