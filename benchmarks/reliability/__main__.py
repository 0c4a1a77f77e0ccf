"""Everything of `make reliability`, kept in reports/reliability/: `python -m benchmarks.reliability`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from onnxtool.files import write_text

RECORDS = Path(__file__).parents[2] / "reports" / "reliability"
RUNS = {
    "fuzz": ["--inputs", "100000"],
    "kill": ["--points", "210"],
    "load": ["--cells", "500"],
}


def page(folder: Path) -> str:
    """What the records say, in Markdown."""
    fuzz, kill, load = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in RUNS)
    lines = ["# Reliability", "", "Written by `make reliability` from the records beside it; do not edit.", ""]
    lines += ["## Damaged files", "", f"`{fuzz['command']}`, {fuzz['seconds']} s.", ""]
    lines += _table(
        ("reader", "inputs", "read", "refused", "findings"),
        [
            (
                name,
                f"{found['inputs']:,}",
                f"{found['read']:,}",
                f"{found['refused']:,}",
                str(len(found["findings"])),
            )
            for name, found in fuzz["readers"].items()
        ],
    )
    total = sum(found["inputs"] for found in fuzz["readers"].values())
    lines += [
        "",
        f"{total:,} inputs in all. A finding is an error that is not onnxtool's own, a crash, a hang or 2 GB.",
    ]
    lines += ["", "## SIGKILL", "", f"`{kill['command']}`.", ""]
    lines += _table(
        ("command", "points", "killed", "takes", "findings"),
        [
            (name, str(run["points"]), str(run["killed"]), f"{run['takes_s']} s", str(len(run["findings"])))
            for name, run in kill["commands"].items()
        ],
    )
    lines += [
        "",
        "A finding is an output that is neither the old nor a new one, a temporary file or a process left.",
    ]
    lines += ["", "## A long sweep", "", f"`{load['command']}`.", ""]
    before, after = load["files"]
    lines += [
        f"{load['measured']} of {load['cells']} cells were measured. The parent's memory grew by "
        f"{load['growth_bytes'] / 2**20:.1f} MiB after the first 50 cells, to {load['peak_bytes'] / 2**20:.0f} MiB;",
        f"open files went from {before} to {after}, and {load['children']} processes were left.",
    ]
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--page", action="store_true", help="write the page alone, from the records there are")
    asked: Any = parser.parse_args(arguments)
    failed = False
    for name, options in () if asked.page else RUNS.items():
        command = [sys.executable, "-m", f"benchmarks.reliability.{name}", *options]
        failed |= subprocess.run([*command, "--record", RECORDS / f"{name}.json"], check=False).returncode != 0
    write_text(RECORDS / "README.md", page(RECORDS))
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
