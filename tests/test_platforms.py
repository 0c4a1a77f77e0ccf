"""What differs between Linux, macOS and Windows, as far as it can be tried on one of them."""

import ast
import ctypes
import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import joblib
import jsonschema
import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression

from onnxtool import system, windows

ROOT = Path(__file__).parents[1]
FOLDERS = ("onnxtool", "bench", "converters", "models", "reports", "validators")
OWN = ("onnxtool/system.py", "onnxtool/windows.py", "onnxtool/janitor.py")
LINUX_ONLY = ("onnxtool/sandbox/",)
POSIX = {
    *("resource", "fcntl", "pwd", "grp", "termios", "SIGKILL", "SIGHUP", "SIGALRM", "fork", "setsid", "killpg"),
    *("getpgid", "setpgid", "getuid", "geteuid", "sched_getaffinity", "sysconf", "pass_fds", "process_group"),
    *("preexec_fn", "start_new_session", "os.name", "sys.platform"),
}
"""Names that only `onnxtool.system` may use."""
NAMES_A_SYSTEM = ("reports/environment.py",)  # it says which one it is


def sources():
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_one_module_asks_the_platform():
    found = []
    for name, tree in sources():
        if name in (*OWN, *NAMES_A_SYSTEM) or name.startswith(LINUX_ONLY):
            continue
        for node in ast.walk(tree):
            used = set()
            if isinstance(node, ast.Import):
                used = {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used = (
                    {node.attr, f"{node.value.id}.{node.attr}"}
                    if node.value.id in ("os", "signal", "sys")
                    else set()
                )
            elif isinstance(node, ast.keyword):
                used = {node.arg}
            found += [f"{name}:{node.lineno}: {word}" for word in used & POSIX]
    assert not found


def test_text_files_have_an_encoding_and_line_feeds():
    """cp1252 and CRLF are what Windows would take."""
    found = []
    for name, tree in sources():
        if name.startswith(LINUX_ONLY):
            continue
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            given = {keyword.arg for keyword in node.keywords}
            needed = {"write_text": {"encoding", "newline"}, "read_text": {"encoding"}}.get(node.func.attr, set())
            if needed - given and name not in (*OWN, "bench/throttling.py"):  # which reads numbers of Linux
                found.append(f"{name}:{node.lineno}: {node.func.attr}")
    assert not found


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Runs a command without what only POSIX has, in a folder with a model."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "path").mkdir()
    shutil.copy(Path(__file__).with_name("elsewhere.py"), folder / "path" / "elsewhere.py")
    (folder / "path" / "sitecustomize.py").write_text("import elsewhere\nelsewhere.block()\n", encoding="utf-8")
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    np.save(folder / "rows.npy", x)
    joblib.dump(LogisticRegression().fit(x, x[:, 0] > 0), folder / "churn.joblib")

    def run(*arguments, **variables):
        environment = {**os.environ, "PYTHONPATH": str(folder / "path"), "OMP_NUM_THREADS": "1", **variables}
        return subprocess.run(
            [sys.executable, "-m", "onnxtool", *arguments], cwd=folder, env=environment, capture_output=True,
            check=False, timeout=300,
        )  # fmt: skip

    done = run(
        "convert",
        "churn.joblib",
        "--data",
        "rows.npy",
        "--target",
        "mlnet",
        "-o",
        "churn.onnx",
        "--json",
        "r.json",
    )
    assert done.returncode == 0, done.stderr.decode()
    return folder, run


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "churn.onnx"],
        ["doctor"],
        ["lint", "churn.onnx"],
        ["verify", "churn.onnx", "churn.joblib", "--data", "rows.npy"],
        ["bench", "churn.onnx", "--duration", "0.1", "--source", "churn.joblib"],
        ["bundle", "churn.onnx", "churn.joblib", "--data", "rows.npy", "-o", "bundle", "--duration", "0.1"],
        ["report", "r.json", "--format", "html"],
        ["convert", "--help"],
    ],
    ids=lambda command: " ".join(command[:1]),
)
def test_every_command_runs_without_what_only_posix_has(elsewhere, command):
    _, run = elsewhere
    done = run(*command)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_nothing_is_left_behind_without_fork(elsewhere, tmp_path):
    _, run = elsewhere
    done = run("verify", "churn.onnx", "churn.joblib", "--data", "rows.npy", TMPDIR=str(tmp_path))
    assert done.returncode == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii"])
def test_a_console_of_another_code_page_is_no_error(elsewhere, encoding):
    _, run = elsewhere
    done = run("report", "r.json", "--format", "text", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert "✓ PASSED".encode() in done.stdout  # a report for programs is UTF-8, as in a file
    done = run("lint", "churn.onnx", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    sign = "√" if encoding == "cp437" and "√" in done.stdout.decode("cp437") else "+"
    assert done.stdout.decode(encoding).startswith(f"{sign} PASSED")
    done = run("inspect", "churn.onnx", "--json", PYTHONIOENCODING=encoding)
    assert json.loads(done.stdout.decode("utf-8"))["path"].endswith("churn.onnx")


def test_long_paths_of_windows_get_their_long_form():
    deep = "C:\\models\\" + "\\".join(["folder-of-some-length"] * 12) + "\\m.onnx"
    assert system.long_path(deep, windows=True) == f"\\\\?\\{deep}"
    assert PureWindowsPath(system.long_path(deep, windows=True)).name == "m.onnx"
    share = "\\\\server\\share\\" + "a" * 240
    assert system.long_path(share, windows=True) == f"\\\\?\\UNC\\server\\share\\{'a' * 240}"
    for same in ("C:\\m.onnx", f"\\\\?\\{deep}"):
        assert system.long_path(same, windows=True) == same
    assert system.long_path(deep) == deep


class Kernel:
    """Writes down what is asked of Windows' kernel."""

    def __init__(self):
        self.calls = []
        self.limits = None
        self.CreateJobObjectW = lambda *_: self.calls.append("create") or 7  # a function, which has attributes

    def SetInformationJobObject(self, handle, kind, limits, size):  # noqa: N802
        self.calls.append("limit")
        self.limits, self.kind, self.size = limits._obj, kind, size
        return 1

    def AssignProcessToJobObject(self, handle, process):  # noqa: N802
        self.calls.append(("assign", handle.value, process.value))
        return 1

    def TerminateJobObject(self, handle, code):  # noqa: N802
        self.calls.append("terminate")

    def CloseHandle(self, handle):  # noqa: N802
        self.calls.append("close")


def test_a_job_object_ends_with_its_maker_and_limits_memory():
    kernel = Kernel()
    job = windows.Job(42, 2**30, kernel)
    assert kernel.calls == ["create", "limit", ("assign", 7, 42)]
    assert (kernel.kind, kernel.size) == (9, 144)  # sizeof(JOBOBJECT_EXTENDED_LIMIT_INFORMATION) on 64 bits
    assert windows.ExtendedLimits.process_memory.offset == 112
    assert kernel.limits.basic.flags == 0x2000 | 0x100
    assert kernel.limits.process_memory == 2**30
    job.end()
    del job
    assert kernel.calls[3:] == ["terminate", "close"]
    kernel.AssignProcessToJobObject = lambda *_: 0
    with pytest.raises(OSError, match="job object"):
        windows.Job(42, None, kernel)
    assert ctypes.sizeof(windows.BasicLimits) == 64


def test_a_file_of_its_own_is_locked_and_goes(tmp_path, monkeypatch):
    calls = []
    fake = SimpleNamespace(LK_LOCK=1, LK_UNLCK=0, locking=lambda handle, mode, count: calls.append((mode, count)))
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    unlock = windows.lock_file(tmp_path / "lock")
    assert (tmp_path / "lock").exists()
    unlock()
    assert calls == [(1, 1), (0, 1)]
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_open_is_named_on_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "WINDOWS", True)
    monkeypatch.setattr(system.time, "sleep", lambda _: None)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Access is denied")))
    with pytest.raises(PermissionError, match="a program has the file open"):
        system.replace(tmp_path / "a", tmp_path / "b")


def test_a_process_ends_after_its_parent(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "getppid", iter([5, 5, 1]).__next__)
    monkeypatch.setattr("psutil.pid_exists", lambda _: True)
    monkeypatch.setattr(os, "_exit", ended.append)
    system._end_after(5, lambda _: None)
    assert ended == [1]


def test_a_checkout_without_symbolic_links_is_a_package(tmp_path):
    """Git for Windows writes a link as a text file: what is installed finds the folders without them."""
    for folder in FOLDERS:
        shutil.copytree(
            ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for link in [path for path in (tmp_path / "onnxtool").iterdir() if path.is_symlink()]:
        target = str(link.readlink())
        link.unlink()
        link.write_text(target, encoding="utf-8")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    code = (
        "import sys, zipfile; from setuptools import build_meta; name = build_meta.build_editable('wheel')\n"
        "zipfile.ZipFile(f'wheel/{name}').extractall('site')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    (finder,) = (tmp_path / "site").glob("__editable___onnxtool*.py")
    code = (
        "import sys; from importlib.util import module_from_spec, spec_from_file_location as found\n"
        "sys.meta_path[:] = [entry for entry in sys.meta_path if 'Editable' not in repr(entry)]\n"
        f"spec = found('finder', {str(finder)!r}); finder = module_from_spec(spec)\n"
        "spec.loader.exec_module(finder); finder.install()\n"
        "import onnxtool.bench.plan, onnxtool.models.sklearn, onnxtool.reports.json\n"
        "print(onnxtool.bench.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(tmp_path / "bench" / "__init__.py"), done.stderr


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "docs" / "workflows").glob("*.yml")))
def test_workflows_are_valid_by_githubs_schema(name):
    schema = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "github-workflows.json"
    content = yaml.safe_load((ROOT / "docs" / "workflows" / name).read_text(encoding="utf-8"))
    content["on"] = content.pop(True)  # YAML 1.1 reads the word as a boolean, GitHub does not
    validator = jsonschema.Draft7Validator(json.loads(schema.read_text(encoding="utf-8")))
    assert not list(validator.iter_errors(content))
    content["jobs"]["other"] = {"runs-on": "ubuntu-latest", "step": []}
    assert list(validator.iter_errors(content))


def test_a_workflow_runs_on_the_three_systems():
    content = yaml.safe_load((ROOT / "docs" / "workflows" / "three-systems.yml").read_text(encoding="utf-8"))
    assert content["jobs"]["test"]["strategy"]["matrix"]["os"] == [
        "ubuntu-latest",
        "windows-latest",
        "macos-latest",
    ]
    for word in " ".join(step.get("run", "") for step in content["jobs"]["test"]["steps"]).split():
        if word.startswith("tests/"):
            assert (ROOT / word).exists(), word
