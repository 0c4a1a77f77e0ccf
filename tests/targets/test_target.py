"""The registry of deployment targets, and their use by the command line and the public functions."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LinearRegression

import onnxtool
from onnxtool import cli
from onnxtool.errors import UsageError
from onnxtool.targets import target

BUILT_IN = {"mlnet", "ort"}
ROWS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)

OUTSIDER = """
from onnxtool.targets.target import Option, Target

class Outsider(Target):
    name = NAME
    options = [Option("colour", "a colour.", ["convert"], choices=["red", "blue"]), *MORE]
    def __init__(self, colour=None, **more): pass
"""


@pytest.fixture
def outsider(tmp_path, monkeypatch):
    """Install a distribution that registers a target."""

    def install(name="outsider", value="outsider_target:Outsider", more=""):
        (tmp_path / "outsider_target.py").write_text(
            OUTSIDER.replace("NAME", repr(name)).replace("MORE", f"[{more}]")
        )
        info = tmp_path / "outsider_target-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider-target\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{target.GROUP}]\noutsider = {value}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "outsider_target", raising=False)
        target.targets.cache_clear()

    yield install
    target.targets.cache_clear()


def fails(*arguments):
    """The message of a command that ends with bad usage."""
    result = CliRunner().invoke(cli.cli, arguments)
    assert isinstance(result.exception, UsageError | SystemExit), result.exception
    return str(result.exception) if isinstance(result.exception, UsageError) else result.output


def test_the_built_in_targets_come_through_the_public_hook():
    assert set(target.targets()) >= BUILT_IN
    assert "ort" in target.targets_of("convert")
    assert "ort" not in target.targets_of("lint")  # it has no rules
    assert "ort" not in target.targets_of("bundle")


def test_two_of_one_name_are_refused(outsider):
    outsider("mlnet")
    with pytest.raises(UsageError, match=r"Two distributions register the target 'mlnet' \(.*outsider_target"):
        target.targets()
    assert "Two distributions" in fails("convert", "model.joblib")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("onnxtool.targets.target:GROUP", "not an onnxtool Target"),
        ("onnxtool.targets.target:Target", "not an onnxtool Target"),
        ("no_such_module:Outsider", "no_such_module"),
        ("outsider_target:NoSuchClass", "NoSuchClass"),
    ],
)
def test_what_is_no_target_is_refused(outsider, value, message):
    outsider(value=value)
    with pytest.raises(UsageError, match=message):
        target.targets()


def test_a_broken_target_leaves_the_other_commands_alone(outsider):
    outsider(value="no_such_module:Outsider")
    for arguments in (["--help"], ["bench", "--help"], ["verify", "--help"]):
        assert CliRunner().invoke(cli.cli, arguments).exit_code == 0


def test_a_targets_options_are_its_own(outsider, tmp_path):
    outsider()
    text = " ".join(CliRunner().invoke(cli.cli, ["convert", "--help"]).output.split())
    assert "--colour [red|blue] For outsider: a colour." in text
    assert "--colour" not in CliRunner().invoke(cli.cli, ["lint", "--help"]).output
    model = LinearRegression().fit(ROWS, ROWS[:, 0])
    path = tmp_path / "model.onnx"
    report = onnxtool.convert(model, path, target="outsider", colour="red")
    assert report.subjects[0].conversion.target == "outsider"
    for options, message in [
        ({"colour": "red"}, "--colour goes with --target outsider"),
        ({"target": "outsider", "colour": "green"}, "none of red, blue"),
        ({"target": "outsider", "columns": "vector"}, "--columns goes with --target mlnet"),
        ({"target": "outsider", "colur": "red"}, "no option 'colur'"),
        ({"target": "nowhere"}, "no target 'nowhere'"),
    ]:
        with pytest.raises(UsageError, match=message):
            onnxtool.convert(model, path, **options)
    with pytest.raises(UsageError, match="lint has no target 'outsider'"):
        onnxtool.lint(path, target="outsider")


def test_targets_may_share_an_option_that_means_the_same(outsider):
    outsider(more='Option("mlnet_version", "the same.", ["convert"])')
    text = " ".join(CliRunner().invoke(cli.cli, ["convert", "--help"]).output.split())
    assert "For mlnet: release" in text
    assert "For outsider: the same." in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('Option("columns", "others.", ["convert"], kind=int)', "both have the option --columns"),
        ('Option("seed", "a seed.", ["convert"])', "has the option 'seed', which convert has already"),
    ],
)
def test_options_that_collide_are_refused(outsider, more, message):
    outsider(more=more)
    assert message in fails("convert", "--help")


def test_what_was_not_given_is_the_targets_default():
    chosen = target.choose("mlnet", "lint", {"mlnet_version": None})
    assert chosen.max_opset == target.targets()["mlnet"]().max_opset
