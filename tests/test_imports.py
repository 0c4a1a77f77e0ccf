"""What may be imported when, in interpreters of their own."""

import ast
import importlib
import pkgutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import onnxtool

ROOT = Path(__file__).parents[1]

EXTRAS = (
    "catboost", "joblib", "keras", "lightgbm", "onnxmltools", "onnxruntime", "onnxsim", "onnxslim", "pandas",
    "pyarrow", "safetensors", "skl2onnx", "sklearn", "skops", "tensorflow", "tf2onnx", "torch", "xgboost",
)  # fmt: skip
HEAVY = (*EXTRAS, "jinja2", "numpy", "onnx", "pydantic", "rich", "scipy")

BLOCKER = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def bare(tmp_path):
    """Run Python as on a machine that has none of the extras."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)

    def run(*command, **options):
        return subprocess.run(
            [sys.executable, *command],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
            capture_output=True, text=True, check=False, cwd=tmp_path, **options,
        )  # fmt: skip

    return run


def modules():
    names = [module.name for module in pkgutil.walk_packages(onnxtool.__path__, "onnxtool.")]
    return [name for name in names if not name.endswith("__main__") and ".models.reference." not in name]


def test_help_of_every_command_imports_nothing_heavy():
    script = """
        import sys
        from onnxtool.cli import cli
        for command in [None, *cli.commands]:
            try:
                cli.main([command, "--help"] if command else ["--help"])
            except SystemExit as end:
                assert end.code == 0
        print(sorted(set(sys.argv[1:]) & set(sys.modules)), file=sys.stderr)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "convert" in done.stdout


def test_every_module_imports_without_any_extra(bare):
    names = modules()
    assert len(names) > 30
    done = bare("-c", f"import importlib\nfor name in {names!r}: importlib.import_module(name)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("make", "extra"),
    [
        (lambda path: path.write_bytes(b"\x80\x05N."), "sklearn"),
        (lambda path: path.write_text("tree\nversion=v4\nnum_class=1\n"), "boosting"),
    ],
)
def test_a_missing_extra_is_an_error_that_names_it(bare, tmp_path, make, extra):
    make(tmp_path / "model.bin")
    done = bare("-m", "onnxtool", "convert", "model.bin", "-o", "model.onnx")
    assert done.returncode == 2
    assert f"pip install 'onnxtool[{extra}]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert not (tmp_path / "model.onnx").exists()


def test_doctor_works_without_any_extra_and_says_what_is_missing(bare):
    done = bare("-m", "onnxtool", "doctor")
    assert done.returncode == 1
    assert "onnxruntime" in done.stdout


def test_the_public_api_is_there_and_bench_is_a_verb_and_a_package():
    assert callable(onnxtool.convert)
    assert callable(onnxtool.verify)
    assert callable(onnxtool.bench)
    importlib.import_module("onnxtool.bench.runner")
    assert callable(onnxtool.bench)
    with pytest.raises(AttributeError, match="nonsense"):
        onnxtool.nonsense  # noqa: B018


def test_each_extra_brings_what_is_imported_in_its_name():
    """`require(module, extra)` names the extra as the remedy: it must be one."""
    missing = [
        f"{module} is not in onnxtool[{extra}]"
        for module, extra in _required()
        if not _distributions(module) & _closure(extra)
    ]
    assert missing == []


def _required() -> set[tuple[str, str]]:
    """The modules and extras of all calls of `require` that name both."""
    found = set()
    for file in _sources():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require" and len(node.args) == 2:
                values = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                if len(values) == 2:
                    found.add((str(values[0]).partition(".")[0], str(values[1])))
    assert len(found) > 10
    return found


def _sources() -> Iterator[Path]:
    folders = ("onnxtool", "bench", "converters", "models", "reports", "validators")
    return (file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def _distributions(module: str) -> set[str]:
    return {canonicalize_name(name) for name in packages_distributions().get(module, [module])}


@cache
def _closure(extra: str) -> set[str]:
    """Distributions that come with an extra, as far as they are installed with all that they need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [*project["dependencies"], *project["optional-dependencies"][extra]]
    found: set[str] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if requirement.marker and not any(
            requirement.marker.evaluate({"extra": e}) for e in ("", *requirement.extras)
        ):
            continue
        if name == "onnxtool":
            waiting += [text for inner in requirement.extras for text in project["optional-dependencies"][inner]]
        elif name not in found:
            found.add(name)
            with suppress(PackageNotFoundError):
                waiting += [text for text in requires(name) or [] if "extra ==" not in text]
    return found
