"""Which cases of a framework convert and agree, as a record and a page: `python -m benchmarks.coverage TABLE`."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections import Counter
from pathlib import Path

from benchmarks.coverage.table import LIMIT_S, fill
from benchmarks.coverage.tf2onnx import SUITE
from onnxtool.errors import MissingExtraError
from onnxtool.files import write_text

TABLES = ("sklearn", "compositions", "torch", "timm", "keras", "transformers", "tf2onnx")
"""Modules of this package, each with `case_names`, `examine`, `versions` and `to_markdown`."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 2 where a library that the table needs is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--only", metavar="REGEX", default=".*", help="cases whose whole name matches")
    parser.add_argument(
        "--record", type=Path, default=Path("record.json"), help="where results are kept, and found again"
    )
    parser.add_argument("--markdown", type=Path, help="where the page goes; by default nowhere")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for a case")
    parser.add_argument("--suite", type=Path, help="folder of tf2onnx's own tests, for the table tf2onnx")
    options = parser.parse_args(arguments)
    if options.suite:
        os.environ[SUITE] = str(options.suite.absolute())  # the workers read it
    table = importlib.import_module(f"benchmarks.coverage.{options.table}")
    try:
        versions = table.versions()
    except MissingExtraError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    chosen = [name for name in table.case_names() if re.fullmatch(options.only, name)]
    results = fill(options.record, versions, table.examine, chosen, workers=options.workers, limit_s=options.limit)
    outcomes = Counter(results[name]["outcome"] for name in chosen)
    sys.stdout.write(f"{outcomes['agrees']} of {len(chosen)} agree. {dict(outcomes)}\n")
    if options.markdown:
        write_text(options.markdown, table.to_markdown(results, versions))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
