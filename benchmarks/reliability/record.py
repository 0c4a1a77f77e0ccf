"""Records of what a command of this folder measured, with the versions of the libraries."""

from __future__ import annotations

import json
from pathlib import Path

from onnxtool.files import write_text
from onnxtool.reports.environment import environment


def keep(path: Path | None, command: str, **results: object) -> None:
    """Write a record.

    Args:
        path: The file; None, as where a command was given no `--record`, keeps nothing.
        command: The options after `python -m benchmarks.reliability.`, as in `kill --points 210`.
        results: What was measured, as JSON has it.
    """
    if path is None:
        return
    record = {
        "command": f"python -m benchmarks.reliability.{command}",
        "libraries": environment().libraries,
        **results,
    }
    write_text(path, json.dumps(record, indent=1) + "\n")
