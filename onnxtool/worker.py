"""The confined process of a source model: `python -m onnxtool.sandbox BOUNDS onnxtool.worker PARENT FOLDER`.

Requests come on standard input, answers go to what was standard output; what a library prints goes to standard error.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from onnxtool.converters.framework import ConvertOptions, frameworks
from onnxtool.converters.graph.finish import write
from onnxtool.errors import OnnxtoolError
from onnxtool.models.rows.channel import read_message, write_message
from onnxtool.models.signature import Tensors
from onnxtool.models.source import SourceModel
from onnxtool.opening import open_source
from onnxtool.opening.messages import (
    ANSWER,
    CONVERTED,
    OPTIONS,
    SPECS,
    Description,
    PlainDomain,
    Request,
    group_of,
    joined,
)
from onnxtool.sandbox import confine
from onnxtool.system import die_with
from onnxtool.validators.parity.agreement import agreement


def main() -> None:
    """Answer until there are no more requests."""
    parent, folder = int(sys.argv[1]), Path(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that sends requests
    if parent:
        die_with(parent)
    requests, answers = _take_over_streams()
    opened: list[SourceModel] = []
    heard = _listen()
    while True:
        try:
            content, tensors = read_message(requests, sys.maxsize)
        except EOFError:
            return
        try:
            if content["request"] == "confinement":  # the first request, before the file is read
                answer: tuple[dict[str, object], Tensors] = {"value": confine.missing}, {}
            elif content["request"] == "open":
                opened[:] = [_open(content["source"], content["options"], tensors)]
                answer = {"value": describe(opened[0]).model_dump(mode="json")}, {}
            else:
                value, made = _answer(content["request"], content, tensors, opened[0], folder)
                answer = {"value": value}, made
        except OnnxtoolError as error:
            answer = {"error": type(error).__name__, "message": str(error)}, {}
        except MemoryError:
            answer = {"error": "MemoryError", "message": ""}, {}
        except Exception:
            answer = {"error": "", "message": traceback.format_exc()}, {}
        answer[0]["warnings"] = heard.copy()
        heard.clear()
        write_message(answers, *answer)


def _listen() -> list[str]:
    """A list that fills with what Python and the libraries warn of, for the process that sends requests."""
    heard: list[str] = []

    def show(message: Warning | str, *_: object, **__: object) -> None:
        heard.append(str(message))

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    warnings.showwarning = show
    logging.getLogger().addHandler(Handler(logging.WARNING))
    return heard


def _take_over_streams() -> tuple[BinaryIO, BinaryIO]:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, answers


def _open(source: str, options: object, data: Tensors) -> SourceModel:
    return open_source(source, replace(OPTIONS.validate_python(options), data=data))


def describe(source: SourceModel) -> Description:
    """The description of a source, without running it."""
    return Description(
        framework=source.framework,
        framework_version=source.framework_version,
        kind=source.kind,
        inputs=source.inputs,
        rows_as=source.rows_as,
        any_number=source.any_number,
        roles=dict(source.roles),
        classes=source.classes,
        path=str(source.path) if source.path else None,
        notes=tuple(source.notes),
        saved_by=tuple(source.saved_by),
        bounds=dict(source.bounds),
    )


def _answer(
    request: Request, content: dict[str, Any], tensors: Tensors, source: SourceModel, folder: Path
) -> tuple[object, Tensors]:
    match request:
        case "predict":
            return None, source.predict(tensors)
        case "answers":
            batches = [group_of(tensors, str(place)) for place in range(content["batches"])]
            found = source.answers(batches)
            return dict(source.effects), joined(**{str(place): batch for place, batch in enumerate(found)})
        case "alternatives":
            others = source.alternatives(tensors)
            return len(others), joined(**{str(place): answer for place, answer in enumerate(others)})
        case "in_double":
            double = source.in_double(tensors)
            return double is not None, double or {}
        case "steps":
            batches = [group_of(tensors, str(place)) for place in range(content["batches"])]
            runs = source.step_runs(batches)
            steps = [step for run in runs for step in run]
            arrays = joined(**{str(place): {"": step.value} for place, step in enumerate(steps)})
            return [[[step.name, step.kind] for step in run] for run in runs], arrays
        case "domains":
            return {name: PlainDomain.of(domain).model_dump() for name, domain in source.domains().items()}, {}
        case "convert":
            convert_options = ConvertOptions(
                content["opset"],
                content["target"],
                group_of(tensors, "rows"),
                agreement,
                SPECS.validate_python(content["inputs"]),
                content["inexact_rows"],
            )
            conversion = frameworks()[source.framework].convert(
                source, group_of(tensors, "example"), convert_options
            )
            (folder / ANSWER).mkdir(exist_ok=True)
            write(conversion.model, folder / ANSWER / CONVERTED)
            return conversion.choices, {}
        case _:
            raise AssertionError(request)


if __name__ == "__main__":
    main()
