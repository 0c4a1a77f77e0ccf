"""Reports as runs of MLflow: a run for each model, with its numbers, the report, and the model itself.

The tracking server is the one that MLflow is set to, by `MLFLOW_TRACKING_URI` or `mlflow.set_tracking_uri`.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from onnxtool.errors import OutputError, require
from onnxtool.models.onnx.artifact import OnnxModel, first_line
from onnxtool.reports import findings, html, json
from onnxtool.reports.model import Report, Subject
from onnxtool.reports.sanitize import sanitized
from onnxtool.reports.scalars import scalars

_NO_NAME = re.compile(r"[^\w./ -]+|(?<=/)[./]+|^[./]+|[./]+$")
"""What MLflow takes in no name of a metric."""


def log(report: Report, experiment: str) -> list[str]:
    """Log a run for each model of a report.

    Args:
        report: What was found. Models whose files are there still are logged with it.
        experiment: Name of the experiment, made where there is none.

    Returns:
        The ids of the runs.

    Raises:
        MissingExtraError: MLflow is not installed.
        OutputError: the tracking server cannot be reached, or refuses.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
    mlflow = require("mlflow", "mlflow")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    failures = (require("mlflow.exceptions", "mlflow").MlflowException, OSError)
    try:
        mlflow.set_experiment(experiment)
        return [_run(mlflow, report, subject) for subject in report.subjects]
    except failures as error:
        raise OutputError(
            f"MLflow at {mlflow.get_tracking_uri()} did not take the report: {first_line(error)}\n"
            "Set MLFLOW_TRACKING_URI to a tracking server that can be reached."
        ) from error


def _run(mlflow: Any, report: Report, subject: Subject) -> str:
    one = report.model_copy(update={"subjects": [subject]})
    shown = sanitized(one).subjects[0]
    with mlflow.start_run(run_name=shown.name) as run, tempfile.TemporaryDirectory() as folder:
        mlflow.set_tags({"onnxtool.passed": str(one.passed).lower(), "onnxtool.sha256": subject.model.sha256})
        mlflow.log_params(_parameters(one, shown))
        mlflow.log_metrics({_NO_NAME.sub("_", name): value for name, value in scalars(shown).items()})
        for name, text in (("report.json", json.render(one)), ("report.html", html.render(one))):
            Path(folder, name).write_text(text, encoding="utf-8", newline="\n")
        mlflow.log_artifacts(folder)
        if Path(subject.model.path).is_file():
            runtime = report.environment.libraries.get("onnxruntime")
            require("mlflow.onnx", "mlflow").log_model(
                OnnxModel.read(subject.model.path).load(),
                name="model",
                pip_requirements=[f"onnxruntime=={runtime}" if runtime else "onnxruntime"],
            )
        return str(run.info.run_id)


def _parameters(report: Report, subject: Subject) -> dict[str, Any]:
    source, parity, bench = subject.source, subject.parity, subject.bench
    found = {
        "command": report.command,
        "onnxtool": report.tool_version,
        "opset": subject.model.opsets.get("ai.onnx"),
        "framework": source and f"{source.framework} {source.framework_version}",
        "kind": source and source.kind,
        "data": (parity and parity.data) or (bench and bench.data),
        "verdict": findings.subject_verdict(subject).word,
        **{name: report.environment.libraries.get(name) for name in ("onnx", "onnxruntime")},
    }
    return {name: value for name, value in found.items() if value is not None}
