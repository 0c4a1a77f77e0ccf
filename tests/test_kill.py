"""A few kills; `make reliability` has the long sweep."""

import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.reliability.kill import left_over, sweep

SLOW = """
import os, signal, sys, tempfile, time
from pathlib import Path
from onnxtool import janitor
from onnxtool.files import staged_path

janitor.start()
with tempfile.TemporaryDirectory() as folder, staged_path(Path(sys.argv[1])) as staged:
    staged.write_text("half")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.mark.alone  # kills are spread over the time that a run takes
@pytest.mark.parametrize("name", ["convert", "bench"])
def test_a_killed_run_leaves_nothing_and_the_next_one_works(name):
    result = sweep(name, 4)
    assert result["findings"] == []
    assert result["killed"] >= 3


def test_the_janitor_clears_up_what_is_half_written(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(target)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    temporary = process.stdout.readline().strip()
    assert len(list(tmp_path.iterdir())) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert left_over(tmp_path) == []
    deadline = time.monotonic() + 5
    while len(list(tmp_path.iterdir())) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    assert not os.path.exists(temporary)  # noqa: PTH110
