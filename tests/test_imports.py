"""What may be imported when, in interpreters of their own."""

import importlib
import pkgutil
import subprocess
import sys
import textwrap

import pytest

import onnxtool

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
