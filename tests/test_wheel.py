"""What is in the wheel, and what is not; that a release is reproducible."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("bench", "converters", "models", "reports", "validators")
# What a command of the repository measured: kept in the repository, not in the package.
RECORDS = ("reports/coverage", "reports/reliability", "reports/truth")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with a checkout, `source`, and the wheel and the sdist built of it."""
    folder = tmp_path_factory.mktemp("built")
    # A copy, since a build folder left by an earlier build would put removed files into the wheel.
    ignored = shutil.ignore_patterns(".*", "build", "dist", "demo", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=ignored)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, folder / "source"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    """The content of each file of the wheel, by name."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sources():
    for folder in ("onnxtool", *FOLDERS):
        root = ROOT / folder
        for path in root.rglob("*"):
            parts = path.relative_to(root).parts
            linked = folder == "onnxtool" and parts[0] in FOLDERS
            record = f"{folder}/{parts[0]}" in RECORDS
            if path.is_file() and not linked and not record and "__pycache__" not in parts:
                yield "/".join(("onnxtool", *([] if folder == "onnxtool" else [folder]), *parts))


def test_every_source_file_is_shipped_once(wheel):
    shipped = {name for name in wheel if not name.split("/")[0].endswith(".dist-info")}
    assert shipped == set(sources())


def test_nothing_else_is_at_the_top(wheel):
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"onnxtool"}


def test_commands_and_frameworks_are_registered(wheel):
    points = next(content.decode() for name, content in wheel.items() if name.endswith("entry_points.txt"))
    assert "onnxtool = onnxtool.cli:main" in points
    for framework in ("sklearn", "boosting", "torch", "keras", "tensorflow"):
        assert f"{framework} = onnxtool.converters.{framework}:FRAMEWORK" in points


def test_no_case_of_a_table_is_shipped(wheel):
    cases = {path.name for path in (ROOT / "benchmarks" / "coverage").glob("*_cases.py")}
    assert len(cases) >= 3
    assert not [name for name in wheel if "benchmarks" in name or "coverage" in name or Path(name).name in cases]


# Run outside the repository, in which `import onnxtool` would find the checkout.
INSTALLED = """
import sys
from importlib.metadata import distribution
from pathlib import Path
import onnxtool
from onnxtool.converters.framework import frameworks

place = Path(sys.argv.pop(1))
modules = [sys.modules[type(framework).__module__] for framework in frameworks().values()]
assert len(modules) >= 6
assert all(Path(module.__file__).is_relative_to(place) for module in (onnxtool, *modules)), modules
assert Path(distribution("onnxtool").locate_file("")) == place
from onnxtool.cli import main
main()
"""


@pytest.mark.parametrize("form", ["*.whl", "*.tar.gz", "source"])
def test_it_installs_from_the_wheel_the_sdist_and_the_checkout(built, tmp_path, form):
    place = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        place,
    ]
    subprocess.run([*pip, next(built.glob(form))], check=True, cwd=tmp_path)
    # A report in HTML needs the templates, which are no modules.
    report = ["report", ROOT / "tests" / "reports" / "golden" / "report-1.0.json", "--format", "html"]
    done = subprocess.run(
        [sys.executable, "-c", INSTALLED, place, *report],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "</html>" in done.stdout


def test_the_licence_is_inside(wheel):
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_a_release_is_the_same_bytes_wherever_it_is_built(released, pattern):
    here, elsewhere = (next(folder.glob(pattern)) for folder in released)
    assert here.name == elsewhere.name
    assert here.read_bytes() == elsewhere.read_bytes()


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Two folders made by `make wheel` in clones that differ in path, times, umask and time zone."""
    folders = []
    for name, umask, zone in (("here", 0o022, "UTC"), ("elsewhere", 0o077, "Asia/Kathmandu")):
        clone = tmp_path_factory.mktemp(name) / name
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True, umask=umask)
        # The recipe under test is the one that stands here, as for the other tests; what it packs is committed.
        shutil.copy(ROOT / "Makefile", clone)
        for number, path in enumerate(sorted(clone.glob("[!.]*/**/*.py"))):
            os.utime(path, (10**9 + number, 10**9 + number))
        # This environment is complete: `make` does not check it.
        command = ["make", "wheel", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.test"]
        done = subprocess.run(
            command,
            cwd=clone,
            umask=umask,
            env=os.environ | {"TZ": zone},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        folders.append(clone / "dist")
    return folders
