"""Confine this process, then be a module: `python -m onnxtool.sandbox BOUNDS MODULE ARGUMENT...`.

Without a module, say what could not be given up.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

from onnxtool.sandbox.confine import confine, missing
from onnxtool.sandbox.launch import UNCONFINED
from onnxtool.sandbox.limits import Limits


def main() -> None:
    """Confine, and run the module."""
    bounds = json.loads(sys.argv[1])
    sys.argv = sys.argv[2:]
    limits = Limits(**bounds["limits"])
    confine(limits, map(Path, bounds["writable"]), map(Path, bounds["readable"]))
    if not sys.argv:
        sys.stdout.write(json.dumps(missing))
        return
    if limits.require and missing:
        sys.stderr.write(f"The sandbox is incomplete here: {'; '.join(missing)}.\n")
        raise SystemExit(UNCONFINED)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
