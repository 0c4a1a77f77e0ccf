"""Reports as scalars for TensorBoard, one folder for each model, to follow a model over many runs."""

from __future__ import annotations

import io
import re
from pathlib import Path
from uuid import uuid4

from onnxtool.errors import require
from onnxtool.files import staged_path, writing
from onnxtool.reports.model import Report
from onnxtool.reports.sanitize import sanitized
from onnxtool.reports.scalars import scalars


def write(report: Report, folder: Path) -> list[Path]:
    """Add the numbers of a report to the event files of a folder.

    The step of each is the time of the report in whole seconds since 1970, so that reports line up as they were made.

    Args:
        report: The report.
        folder: The folder for `tensorboard --logdir`; created if missing.

    Returns:
        The folders written to, one for each model.

    Raises:
        MissingExtraError: TensorBoard is not installed.
        OutputError: the folder cannot be written to.
    """
    protos = "tensorboard.compat.proto"
    event = require(f"{protos}.event_pb2", "tensorboard").Event
    summary = require(f"{protos}.summary_pb2", "tensorboard").Summary
    # Not its EventFileWriter, which imports TensorFlow wherever that is installed.
    records = require("tensorboard.summary.writer.record_writer", "tensorboard").RecordWriter
    report = sanitized(report)
    moment = report.created.timestamp()
    written = []
    for number, subject in enumerate(report.subjects):
        name = re.sub(r"[^\w.-]+", "_", subject.name).strip(".") or f"model{number}"
        values = [summary.Value(tag=tag, simple_value=value) for tag, value in scalars(subject).items()]
        content = io.BytesIO()
        writer = records(content)
        writer.write(event(wall_time=moment, file_version="brain.Event:2").SerializeToString())
        writer.write(event(wall_time=moment, step=int(moment), summary=summary(value=values)).SerializeToString())
        target = folder / name / f"events.out.tfevents.{int(moment)}.{uuid4().hex}"
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        with staged_path(target) as staged:
            staged.write_bytes(content.getvalue())
        written.append(folder / name)
    return written
