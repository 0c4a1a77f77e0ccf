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
    "fuzz": ["--inputs", "300000"],
    "kill": ["--points", "210"],
    "load": ["--cells", "500"],
    "faults": ["--rounds", "5"],
    "sizes": ["--nodes", "10000", "--gigabytes", "2.2"],
}


def page(folder: Path) -> str:
    """What the records say, in Markdown."""
    fuzz, kill, load, faults, sizes = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in RUNS
    )
    lines = [
        "# Reliability",
        "",
        "Written by `make reliability` from the records in this folder; do not edit.",
        "",
    ]
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
    lines += ["", "## Faults of the machine", "", f"`{faults['command']}`.", ""]
    lines += _table(
        ("fault", "commands", "findings"),
        [
            (fault, ", ".join(commands), str(sum(map(len, commands.values()))))
            for fault, commands in faults["faults"].items()
        ],
    )
    lines += [
        "",
        "A finding is an end that is neither a result nor an error of onnxtool's own, an output that is neither the "
        "old nor a whole new one, or a temporary file left.",
    ]
    lines += ["", "## Large models", "", f"`{sizes['command']}`.", ""]
    lines += _table(
        ("model", "command", "exit", "time", "memory of the process", "report"),
        [
            (
                model,
                f"`{run['command']}`",
                str(run["exit"]),
                f"{run['seconds']:.0f} s",
                f"{run['peak_bytes'] / 2**20:,.0f} MiB",
                f"{run['html_bytes'] / 2**10:.0f} KiB" if "html_bytes" in run else "",
            )
            for model, runs in sizes["models"].items()
            for run in runs
        ],
    )
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--page", action="store_true", help="write the page alone, from the records there are")
    parsed: Any = parser.parse_args(arguments)
    failed = False
    for name, options in () if parsed.page else RUNS.items():
        command = [sys.executable, "-m", f"benchmarks.reliability.{name}", *options]
        failed |= subprocess.run([*command, "--record", RECORDS / f"{name}.json"], check=False).returncode != 0
    write_text(RECORDS / "README.md", page(RECORDS))
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
