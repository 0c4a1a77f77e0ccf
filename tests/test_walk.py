"""The walk in CONTRIBUTING.md: a conversion calls the functions that it names, in its order."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from types import FrameType

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from onnxtool import cli

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def walk() -> list[str]:
    """The lines of the walk; those of the confined process are indented."""
    found = re.search(r"^## One model's way\n.*?^```text\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    assert found
    return [re.split(r"(?<=\S) {2,}", line)[0] for line in found[1].splitlines()]


def calls(folder: Path, *options: str) -> list[str]:
    """Functions of onnxtool in the order of their first calls, as a conversion makes them in this process."""
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32), columns=list("abc"))
    joblib.dump(LogisticRegression().fit(rows, rows["a"] > 0), folder / "churn.joblib")
    rows.to_csv(folder / "churn.csv", index=False)
    found: dict[str, None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("onnxtool."):
            found[f"{module.removeprefix('onnxtool.')}.{frame.f_code.co_qualname}"] = None

    arguments, handler = sys.argv, signal.getsignal(signal.SIGTERM)
    paths = {"-o": "m.onnx", "--data": "churn.csv", "--json": "report.json"}
    written = [word for option, name in paths.items() for word in (option, str(folder / name))]
    sys.argv = ["onnxtool", "convert", str(folder / "churn.joblib"), *written, *options]
    sys.setprofile(note)
    try:
        with pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        sys.setprofile(None)
        sys.argv = arguments
        signal.signal(signal.SIGTERM, handler)
    assert end.value.code == 0
    return list(found)


def test_a_conversion_takes_the_way_that_contributing_shows(tmp_path: Path) -> None:
    lines = walk()
    assert len(lines) == 15
    ours = [line for line in lines if not line.startswith(" ")]
    confined = [line.strip() for line in lines if line.startswith(" ")]
    made = calls(tmp_path)
    assert [call for call in made if call in ours] == ours
    assert not set(made) & set(confined)


def test_without_a_sandbox_the_source_is_opened_in_the_same_process(tmp_path: Path) -> None:
    start = "opening.confined.SandboxedSource.__init__"
    lines = walk()
    confined = [place for place, line in enumerate(lines) if line.startswith(" ")]
    lines = [line.strip() for line in lines[: confined[-1] + 1] if line != start]
    made = calls(tmp_path, "--no-sandbox")
    assert [call for call in made if call in lines] == lines
    assert start not in made
