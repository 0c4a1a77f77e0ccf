"""Confine this process, then be a module: `python -m onnxtool.sandbox BOUNDS MODULE ARGUMENT...`."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

from onnxtool.sandbox.confine import confine
from onnxtool.sandbox.limits import Limits


def main() -> None:
    """Run the module."""
    bounds = json.loads(sys.argv[1])
    sys.argv = sys.argv[2:]
    confine(Limits(**bounds["limits"]), map(Path, bounds["writable"]), map(Path, bounds["readable"]))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
