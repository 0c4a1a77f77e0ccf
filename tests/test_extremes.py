"""Extreme cases: external weights that two runs write, names in every script, names too long."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxtool
from onnxtool.bench import memory
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.evaluate import whole
from onnxtool.reports import tensorboard
from onnxtool.reports.render import render
from onnxtool.targets.target import formats

CI = {**os.environ, "CI": "true"}

WRITER = """
import sys
from pathlib import Path
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
from onnxtool.converters.graph import finish
from onnxtool.files import staged_path
from onnxtool.models.onnx import artifact

artifact.INLINE_LIMIT = 100  # as if it were beyond 2 GB: weights are external
mine = float(sys.argv[2])
value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1000])
weights = numpy_helper.from_array(np.full(1000, mine, np.float32), "w")
graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], f"of {mine}", [value],
                          [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1000])], [weights])
model = helper.make_model(graph)
print("ready", flush=True)
for _ in sys.stdin:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with staged_path(Path(sys.argv[1])) as staged:
        finish.write(copy, staged)
    print("done", flush=True)
"""


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], env=CI, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def test_weights_and_graph_are_of_one_run(tmp_path):
    target = tmp_path / "out.onnx"
    writers = [start("-c", WRITER, target, number, stdin=subprocess.PIPE) for number in (1, 2)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for _ in range(150):
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        for writer in writers:
            assert writer.stdout.readline() == "done\n"
        model = onnx.load(target)
        weights = numpy_helper.to_array(model.graph.initializer[0])
        assert model.graph.name == f"of {weights[0]}"
        assert np.ptp(weights) == 0
    for writer in writers:
        writer.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.onnx", "out.onnx.data"]


def test_weights_beyond_2_gb_are_not_read_to_see_that_they_are(tmp_path):
    path = tmp_path / "large.onnx"
    size = 2**31 + 4096
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[size // 4])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="large.data")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", size // 4])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", size // 4])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "large", [value], [output], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with (tmp_path / "large.data").open("wb") as file:
        file.truncate(size)  # a hole: it takes no room on the disk
    memory.reset_peak()
    before = memory.peak()
    assert whole(OnnxModel.read(path)) is None
    assert memory.peak() - before < 2**26


# -- names --------------------------------------------------------------------------------------------------

NAMES = (
    "\u0639\u0631\u0628\u064a", "\u6a21\u578b \u540d", "\U0001f600\U0001f469\u200d\U0001f467", "e\u0301\u0327",
    "a\u202egnp.exe", "a\x01\x1b[31m\x7f\x85b", "\"'`", "../../x", "<script>alert(1)</script>", "]]></failure>",
    "%0A::error::x", "\n::error::y", "=1+1", "n" * 300,
)  # fmt: skip
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def write_named(path: Path, slope: float = 1.0) -> Path:
    """A model whose tensors, nodes, graph and metadata have all the names; it multiplies each input."""
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1])  # noqa: E731
    graph = helper.make_graph(
        [helper.make_node("Mul", [name, "slope"], [f"{name} out"], name=f"{name} node") for name in NAMES],
        NAMES[8],
        [value(name) for name in NAMES],
        [value(f"{name} out") for name in NAMES],
        [numpy_helper.from_array(np.float32([slope]), "slope")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.producer_name = NAMES[8]
    helper.set_model_props(model, {name: name for name in NAMES})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A report on a model that has drifted, under a name of the same kind, and was measured."""
    folder = tmp_path_factory.mktemp("named")
    source = write_named(folder / "source.onnx")
    drifted = write_named(folder / "=<b>\u202e%0A::error::.onnx", slope=1.5)
    report = onnxtool.verify(drifted, source, explain=True)
    report.subjects[0].bench = onnxtool.bench(drifted, duration=0.05).subjects[0].bench
    return report


def parsed(format_name: str, text: str) -> None:
    """Read a report as its own readers do."""
    if format_name in ("json", "sarif", "mlnet", "pytest-benchmark"):
        json.loads(text)
    elif format_name == "junit":
        assert not list(ET.fromstring(text.encode()).iter("script"))  # noqa: S314 - our own output
    elif format_name == "csv":
        rows = list(csv.reader(io.StringIO(text)))
        assert len({len(row) for row in rows}) == 1
        assert len(rows) == 1 + len(NAMES) + 1
        for cell in (cell for row in rows for cell in row if cell[:1] in ("=", "+", "-", "@")):
            float(cell)
    elif format_name == "html":
        tags: set[str] = set()
        page = HTMLParser()
        page.handle_starttag = lambda tag, attributes: tags.add(tag)  # type: ignore[method-assign]
        page.feed(text)
        assert "table" in tags
        assert not tags & {"script", "b", "failure", "img"}
    elif format_name == "github":
        lines = text.splitlines()
        assert all(
            re.fullmatch(r"::(error|warning|notice) title=[^:,]*(,file=[^:,]*)?::.*", line) for line in lines
        )


@pytest.mark.parametrize("format_name", formats())
def test_every_format_takes_names_as_names(named, format_name):
    text = render(named, format_name, formats())
    parsed(format_name, text)
    if format_name not in ("json", "mlnet"):  # JSON keeps what it was given, with its own escapes
        assert not UNSEEN.search(text)


def test_every_command_takes_names_as_names(tmp_path):
    source = write_named(tmp_path / "source.onnx")
    report = onnxtool.convert(source, tmp_path / "\u6a21\u578b \u202e'x.onnx", optimize="basic")
    assert report.subjects[0].parity.passed
    assert [spec.name for spec in report.subjects[0].model.inputs] == list(NAMES)
    assert {name: report.subjects[0].model.metadata[name] for name in NAMES} == {name: name for name in NAMES}
    onnxtool.lint(source)
    onnxtool.bundle(source, source, tmp_path / "bundle", duration=0.05)
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text(encoding="utf-8"))
    written = {str(file.relative_to(tmp_path / "bundle")) for file in (tmp_path / "bundle").rglob("*")}
    assert set(manifest["files"]) <= written
    tensorboard.write(report, tmp_path / "events")
    assert {path.name for path in tmp_path.iterdir()} == {
        "source.onnx", "\u6a21\u578b \u202e'x.onnx", "bundle", "events",
    }  # fmt: skip


def test_names_in_a_log_of_github_are_no_commands(tmp_path):
    write_named(tmp_path / "source.onnx")
    write_named(tmp_path / "drifted.onnx", slope=1.5)
    ended = subprocess.run(
        [sys.executable, "-m", "onnxtool", "verify", "drifted.onnx", "source.onnx"],
        cwd=tmp_path, env={**CI, "GITHUB_ACTIONS": "true"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    log = ended.stdout + ended.stderr
    assert not UNSEEN.search(log)
    stop = re.search("^::stop-commands::(.+)$", log, re.MULTILINE)[1]
    before, _, rest = log.partition(f"::stop-commands::{stop}\n")
    after = rest.partition(f"::{stop}::\n")[2]
    commands = [line for line in (before + after).splitlines() if line.startswith("::")]
    assert commands
    assert all(re.match("::(error|warning|notice) title=onnxtool", line) for line in commands)


@pytest.mark.parametrize("name", ["n" * 250, "\u00e9" * 125])
def test_a_file_name_may_be_as_long_as_the_system_allows(tmp_path, name):
    source = write_named(tmp_path / "source.onnx")
    onnxtool.convert(source, tmp_path / f"{name}.onnx", verify=False)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.onnx", "source.onnx"}
    with pytest.raises(onnxtool.errors.OutputError, match="File name too long"):
        onnxtool.convert(source, tmp_path / f"{name}{name}.onnx", verify=False)
