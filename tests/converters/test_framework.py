import textwrap

import pytest

from onnxtool import opening
from onnxtool.converters import framework
from onnxtool.errors import SourceError, UsageError
from onnxtool.models.source import LoadOptions

BUILT_IN = {"sklearn", "boosting", "torch", "keras", "tensorflow", "onnx"}

PLUGIN = """
from onnxtool.converters.framework import Framework

class Outsider(Framework):
    name, extra, max_opset, default_opset = NAME, "outsider", 17, 17
    def recognises(self, source): return source.endswith(".outside")
    def owns(self, model): return False
    def load(self, source, options): raise NotImplementedError
    def wrap(self, model, options): raise NotImplementedError
    def convert(self, source, example, options): raise NotImplementedError

FRAMEWORK = Outsider()
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install a distribution that registers a framework, as an outsider's would."""

    def install(name, value="outsider:FRAMEWORK"):
        (tmp_path / "outsider.py").write_text(PLUGIN.replace("NAME", repr(name)))
        info = tmp_path / "outsider-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{framework.GROUP}]\noutsider = {value}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(__import__("sys").modules, "outsider", raising=False)
        framework.frameworks.cache_clear()

    yield install
    framework.frameworks.cache_clear()


def test_the_built_in_frameworks_come_through_the_public_hook():
    assert set(framework.frameworks()) >= BUILT_IN


def test_an_outsider_registers_the_same_way(plugin):
    plugin("outsider")
    assert set(framework.frameworks()) >= BUILT_IN | {"outsider"}


def test_two_of_one_name_are_refused(plugin):
    plugin("torch")
    with pytest.raises(UsageError, match="Two distributions register the framework 'torch'"):
        framework.frameworks()


def test_something_else_is_refused(plugin):
    plugin("outsider", value="outsider:Outsider")
    with pytest.raises(UsageError, match="not an onnxtool Framework"):
        framework.frameworks()


def test_a_broken_one_is_named(plugin):
    plugin("outsider", value="no_such_module:FRAMEWORK")
    with pytest.raises(UsageError, match="no_such_module"):
        framework.frameworks()


def test_an_unknown_object_is_named():
    with pytest.raises(SourceError, match=r"builtins\.dict"):
        opening.open_source({"a": 1}, LoadOptions())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text(textwrap.dedent("hello")), "not recognised"),
        (lambda path: path.mkdir(), "no SavedModel"),
    ],
)
def test_an_unknown_file_says_what_is_known(tmp_path, make, message):
    path = tmp_path / "model.xyz"
    make(path)
    with pytest.raises(SourceError, match=message):
        opening.open_source(str(path), LoadOptions())
