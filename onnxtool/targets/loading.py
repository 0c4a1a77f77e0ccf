"""Whether ONNX Runtime loads a model, found out in a confined process, which a damaged file may take down.

`python -m onnxtool.targets.loading MODEL` is that process.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from onnxtool.errors import ModelError, require
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.process import answering, run_worker
from onnxtool.sandbox.launch import confinement, environment
from onnxtool.sandbox.limits import Limits
from onnxtool.system import signal_name

_TIMEOUT_S = 300.0


def refusal(model: OnnxModel) -> str | None:
    """Why the ONNX Runtime that is installed here does not load a model; None where it does.

    Raises:
        MissingExtraError: it is not installed.
    """
    name = f"ONNX Runtime {require('onnxruntime', 'cpu').__version__}"
    files = tempfile.TemporaryFile
    with tempfile.TemporaryDirectory() as scratch, files() as task, files() as answer:
        confined = confinement(Limits(), [Path(scratch)], [model.path.parent])
        module = [*confined, "onnxtool.targets.loading", str(model.path.absolute())]
        outcome = run_worker(module, task, answer, environment(Path(scratch)), _TIMEOUT_S)
        answer.seek(0)
        text = answer.read().decode("utf-8", "replace")
    if outcome.exit_code is None:
        return f"{name} did not load it within {_TIMEOUT_S:.0f} s."
    if outcome.exit_code < 0:
        return f"{name} crashed on it: {signal_name(-outcome.exit_code)}."
    if outcome.exit_code or not text:
        return f"{name} could not be started to load it."
    why = json.loads(text)
    return None if why is None else f"{name}: {why}"


def main() -> None:
    """Load the model, and write why that fails, or null."""
    path, file = Path(sys.argv[1]), answering()
    why = None
    try:
        OnnxModel.read(path).session()
    except ModelError as error:
        why = str(error).partition(f"{path}: ")[2] or str(error)
    with file:
        file.write(json.dumps(why).encode())


if __name__ == "__main__":
    main()
