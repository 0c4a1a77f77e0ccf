"""Starting a module of ours confined: how, and with how little of our environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from onnxtool.sandbox.limits import Limits

_PASSED = {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT"}
_PASSED_FAMILIES = (
    *("LC_", "PYTHON", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_"),
    *("TF_", "XLA_", "KERAS_", "TORCH_", "PYTORCH_", "CUDA_", "NVIDIA_", "ORT_"),
)
"""Variables that configure libraries. The rest of an environment in CI may be credentials."""


UNCONFINED = 77
"""Exit code of a process that was to be confined wholly or not at all, and could not be."""


def confinement(limits: Limits, writable: Iterable[Path], readable: Iterable[Path]) -> list[str]:
    """The arguments between `python -m` and a module that confine it.

    Args:
        limits: Memory and files; time is for whoever waits.
        writable: The folders in which it may write.
        readable: What it may read besides the system's files and Python's.
    """
    bounds = {
        "limits": asdict(limits),
        "writable": [str(path) for path in writable],
        "readable": [str(path.absolute()) for path in readable],
    }
    return ["onnxtool.sandbox", json.dumps(bounds)]


def environment(folder: Path) -> dict[str, str]:
    """Its environment, whose temporary files and caches go to its folder."""
    passed = {
        name: value for name, value in os.environ.items() if name in _PASSED or name.startswith(_PASSED_FAMILIES)
    }
    own = dict.fromkeys(("TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME", "MPLCONFIGDIR"), str(folder))
    return {**passed, **own, "PYTHONPATH": os.pathsep.join(sys.path)}


def lacks() -> list[str]:
    """The restrictions that this machine cannot enforce, found out in a confined process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", *confinement(Limits(), [Path(folder)], [])]
        done = subprocess.run(command, env=environment(Path(folder)), capture_output=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found
