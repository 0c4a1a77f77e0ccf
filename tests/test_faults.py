"""Faults of the machine, provoked for real; `make reliability` provokes them for every command.

tests/test_kill.py ends runs, tests/bench/test_faults.py has workers that misbehave.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
from functools import partial

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper

import onnxtool
from benchmarks.reliability import faults, sizes
from benchmarks.reliability.kill import state, whole
from onnxtool.bench.plan import plan_cells
from onnxtool.bench.session import profiled_placement_of
from onnxtool.cli import cli
from onnxtool.errors import OutputError
from onnxtool.files import write_text
from onnxtool.models.onnx.providers import CPU
from onnxtool.reports.render import render


@pytest.fixture
def work(tmp_path):
    work = faults.workplace(tmp_path)
    faults.old_outputs(work)
    return work


@pytest.mark.parametrize("name", ["convert", "page"])
def test_a_full_disk_leaves_the_old_file(work, name):
    assert faults.refused(work, name, partial(faults.full_disk, 500)) == []


def test_a_full_disk_leaves_the_old_bundle(work):
    assert faults.refused(work, "bundle", partial(faults.full_disk, faults.LARGEST["bundle"])) == []


def test_a_profile_that_cannot_be_written(work, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    rows = {"X": np.ones((1, 4), np.float32)}
    (plan,) = plan_cells([CPU], [1], [None])
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError, match=r"profile wholly to .*: is the disk full"):
            profiled_placement_of(str(work.source / "good.onnx"), plan, rows, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["verify"])
def test_an_output_folder_that_may_not_be_written(work, name):
    work.output.chmod(0o555)
    assert faults.refused(work, name, faults.no_privilege) == []


def test_a_source_folder_that_may_not_be_written(work):
    work.source.chmod(0o555)
    ended = faults.end(faults.start(work, "convert", faults.no_privilege))
    assert (ended.code, ended.message) == (0, "")
    assert whole(work.output / "out.onnx")


def test_a_clock_that_goes_back(work):
    """To 1970, which no ZIP file can store."""
    assert faults.clock_back(work, "verify", 30 * 86400.0) == []
    created = json.loads((work.output / "out.json").read_text(encoding="utf-8"))["created"]
    assert created.startswith("1970-01-3")


def test_a_worker_out_of_memory(work):
    assert faults.out_of_memory(work, batches=(1, 20_000)) == []


def write_often(path, letter, ready):
    ready.wait()
    for _ in range(200):
        write_text(path, letter * 100_000)


def test_two_runs_write_to_one_file(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("a" * 100_000, encoding="utf-8")
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(3)
    writers = [context.Process(target=write_often, args=(path, letter, ready)) for letter in "ab"]
    for writer in writers:
        writer.start()
    ready.wait()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_text(encoding="utf-8"))
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen <= {"a" * 100_000, "b" * 100_000}
    assert list(state(tmp_path)) == ["out.json"]


def test_inspect_shows_some_of_many_tensors(tmp_path):
    onnx.save(helper.make_model(sizes.wide(100, 1)), tmp_path / "model.onnx")
    ended = CliRunner().invoke(cli, ["inspect", str(tmp_path / "model.onnx")])
    assert "x39" in ended.output
    assert "x40" not in ended.output
    assert "40 of 100 shown; --json has all of them." in ended.output


GRAPHS = {"deep": sizes.chain(1500), "many inputs": sizes.wide(300, 1), "many outputs": sizes.wide(1, 300)}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_deep_and_wide_graphs(tmp_path, graph):
    """Deeper than Python recurses; `python -m benchmarks.reliability.sizes` takes 10,000."""
    sizes.save(graph, tmp_path / "model.onnx")
    assert onnxtool.lint(tmp_path / "model.onnx").subjects[0].lint
    report = onnxtool.verify(tmp_path / "model.onnx", tmp_path / "model.onnx", explain=True)
    assert report
    page = render(report, "html")
    assert len(page) < sizes.READABLE_BYTES
    assert "40 of 300" in render(report, "text") or len(report.subjects[0].parity.outputs) == 1
