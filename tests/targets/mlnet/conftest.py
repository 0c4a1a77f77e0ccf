"""The real ML.NET, for the tests: `mlnet5(jobs)` scores models in ML.NET 5, and `compiled` runs C# with it.

They need the .NET SDK as `dotnet` on the PATH, and skip without it; with ONNXTOOL_REQUIRE_DOTNET=1, which
`.ci/run` sets where there is one, they fail.

`mlnet(jobs)` does the same in ML.NET 1.5, for the facts about old releases. `score.py` says what a job is. Wheels of
the package index hold all of it: nimbusml 1.8.0 has the assemblies of ML.NET 1.5.0-preview2, dotnetcore2 3.1.23 the
runtime of .NET Core 3.1. They are downloaded once (165 MB) into the user's cache folder, and never committed. The
native ONNX Runtime is the user's choice in ML.NET, and here too; `native` is

    bundled    1.2.0, with which this ML.NET was released: up to opset 11 and IR version 6;
    pinned     1.23.2, with which ML.NET 5.0 is released;
    installed  that of the virtual environment;"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import platformdirs
import pytest

WHEELS = {
    "nimbusml==1.8.0": ("3.8", "cp", "cp38", "manylinux1_x86_64"),
    "dotnetcore2==3.1.23": ("3.8", "py", "none", "manylinux1_x86_64"),
    "onnxruntime==1.23.2": ("3.11", "cp", "cp311", "manylinux_2_28_x86_64"),
}
ASSEMBLIES = ("Core", "Data", "DataView", "Transforms", "CpuMath", "OnnxRuntime", "OnnxTransformer")
LIBRARIES = ("Google.Protobuf.dll", "Newtonsoft.Json.dll", "libCpuMathNative.so", "libonnxruntime.so")
ANALYZERS = ("Microsoft.CodeAnalysis.NetAnalyzers", "Microsoft.CodeAnalysis.CSharp.NetAnalyzers")
RUNTIME_CONFIG = {
    "runtimeOptions": {
        "tfm": "netcoreapp3.1",
        "framework": {"name": "Microsoft.NETCore.App", "version": "3.1.0"},
        "configProperties": {"System.Globalization.Invariant": True},  # needs no ICU
    }
}

DOTNET = {
    **os.environ,
    "DOTNET_CLI_TELEMETRY_OPTOUT": "1",
    "DOTNET_CLI_USE_MSBUILD_SERVER": "0",
    "MSBUILDDISABLENODEREUSE": "1",
}

Score = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def mlnet_folder() -> Path:
    """Where ML.NET lies: `dotnet/` is the runtime, `bundled/`, `pinned/` and `installed/` are the assemblies."""
    cache = Path(platformdirs.user_cache_dir("onnxtool-tests"))
    folder = cache / f"mlnet-1.5-onnxruntime-1.23.2-{onnxruntime.__version__}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        # Whole or not at all, though several test runs begin at once.
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _set_up(Path(scratch))
            try:
                Path(scratch, "mlnet").rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
    return folder


@pytest.fixture(scope="session")
def dotnet() -> Path:
    """The .NET SDK's program."""
    found = shutil.which("dotnet")
    if found is None:
        needed = "needs the .NET SDK 10, https://dotnet.microsoft.com/download: dotnet is not on the PATH"
        if os.environ.get("ONNXTOOL_REQUIRE_DOTNET"):
            pytest.fail(needed)
        pytest.skip(needed)
    return Path(found)


@pytest.fixture(scope="session")
def scorer(dotnet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that scores in ML.NET 5, built once, next to the assemblies of ML.NET."""
    folder = shutil.copytree(Path(__file__).parent / "scorer", tmp_path_factory.mktemp("scorer") / "scorer")
    command = [dotnet, "build", "-nologo", "-p:UseSharedCompilation=false", "-o", folder / "out", folder]
    done = subprocess.run(list(map(str, command)), env=DOTNET, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out" / "Scorer.dll"


class Program:
    """A C# program, compiled with ML.NET 5; call it with its arguments."""

    def __init__(self, dotnet: Path, dll: Path) -> None:
        self.dotnet, self.dll = dotnet, dll

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [self.dotnet, "exec", self.dll, *arguments]
        return subprocess.run(list(map(str, command)), env=DOTNET, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def compiled(dotnet: Path, scorer: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Program]:
    """Compile C# files by the SDK's compiler, warnings as errors, with the analysis of `latest-recommended`."""
    version, where = subprocess.check_output([dotnet, "--list-sdks"], text=True).splitlines()[-1].split(" ", 1)
    sdk = Path(where.strip("[]"), version)
    reference = max(Path(dotnet.resolve().parent, "packs", "Microsoft.NETCore.App.Ref").iterdir())
    analyzers = sdk / "Sdks" / "Microsoft.NET.Sdk" / "analyzers"
    level = f"analysislevel_{version.split('.')[0]}_recommended_warnaserror.globalconfig"
    native = list(scorer.parent.glob("runtimes/linux-x64/native/*"))
    libraries = [path for path in scorer.parent.glob("*.dll") if path != scorer]
    options = [
        "-nologo", "-nostdlib", "-langversion:12", "-warnaserror", "-nullable:enable",
        "-nowarn:1701,1702,CA1016",  # versions of assemblies: the SDK passes the first two and writes the third
        "-nowarn:CA1050",  # the tests' own programs have no namespace
        f"-analyzerconfig:{analyzers / 'build' / 'config' / level}",
        *(f"-analyzer:{analyzers / name}.dll" for name in ANALYZERS),
        *(f"-r:{path}" for path in (*reference.glob("ref/net*/*.dll"), *libraries)),
    ]  # fmt: skip

    def compile_(sources: Sequence[Path], content: Path | None = None) -> Program:
        """Compile; `content` is a bundle whose files lie where a build of its project puts them."""
        folder = tmp_path_factory.mktemp("csharp")
        for path in (*libraries, *native):
            (folder / path.name).symlink_to(path)
        shutil.copy(scorer.with_suffix(".runtimeconfig.json"), folder / "program.runtimeconfig.json")
        if content is not None:
            name = json.loads((content / "manifest.json").read_text())["name"]
            version = hashlib.sha256((content / "model.onnx").read_bytes()).hexdigest()[:12]
            (folder / name / version).mkdir(parents=True)
            for file in ("model.onnx", "golden.json", "manifest.json"):
                shutil.copy(content / file, folder / name / version / file)
        (folder / "options.rsp").write_text(
            "\n".join(f'"{word}"' for word in (*options, f"-out:{folder / 'program.dll'}", *map(str, sources)))
        )
        command = [
            dotnet,
            "exec",
            sdk / "Roslyn" / "bincore" / "csc.dll",
            "-noconfig",
            f"@{folder / 'options.rsp'}",
        ]
        done = subprocess.run(list(map(str, command)), env=DOTNET, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return Program(dotnet, folder / "program.dll")

    return compile_


@pytest.fixture(scope="session")
def mlnet5(dotnet: Path, scorer: Path, tmp_path_factory: pytest.TempPathFactory) -> Score:
    """Score a list of jobs in one process of ML.NET 5, as `mlnet` does in an older one."""

    def score(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("mlnet5")
        (folder / "jobs.json").write_text(json.dumps(_json(jobs)))
        command = [dotnet, "exec", scorer, folder / "jobs.json", folder / "results.json"]
        done = subprocess.run(list(map(str, command)), env=DOTNET, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        results: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())
        return results

    return score


@pytest.fixture(scope="session")
def mlnet(mlnet_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Score:
    """Score a list of jobs in one process of ML.NET, and return a result for each; see `score.py`."""

    def score(jobs: list[dict[str, Any]], native: str = "installed") -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("mlnet")
        (folder / "jobs.json").write_text(json.dumps(jobs, default=_plain))
        command = [Path(__file__).with_name("score.py"), mlnet_folder, native, folder / "jobs.json"]
        done = subprocess.run(
            [sys.executable, *map(str, command), str(folder / "results.json")],
            env={**os.environ, "DOTNET_CLI_TELEMETRY_OPTOUT": "1", "COMPlus_EnableDiagnostics": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        results: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())
        return results

    return score


def _json(value: Any) -> Any:
    """As JSON has it: a number that is not finite is a text."""
    if isinstance(value, dict):
        return {name: _json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if value is None or isinstance(value, str | int | float) else _json(_plain(value))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _set_up(scratch: Path) -> None:
    wheels = scratch / "wheels"
    for requirement, (python, implementation, abi, platform) in WHEELS.items():
        subprocess.run(
            [
                sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                "--python-version", python, "--implementation", implementation, "--abi", abi,
                "--platform", platform, "--dest", str(wheels), requirement,
            ],
            check=True,
        )  # fmt: skip
    folder = scratch / "mlnet"
    names = [*(f"Microsoft.ML.{name}.dll" for name in ASSEMBLIES), *LIBRARIES]
    _extract(next(wheels.glob("nimbusml-*.whl")), "nimbusml/internal/libs/", folder / "bundled", names)
    _extract(next(wheels.glob("dotnetcore2-*.whl")), "dotnetcore2/bin/", folder / "dotnet")
    (folder / "dotnet" / "dotnet").chmod(0o755)
    (folder / "runtimeconfig.json").write_text(json.dumps(RUNTIME_CONFIG))
    _extract(next(wheels.glob("onnxruntime-*.whl")), "onnxruntime/capi/", scratch, ["libonnxruntime.so.1.23.2"])
    natives = {
        "pinned": scratch / "libonnxruntime.so.1.23.2",
        "installed": next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")),
    }
    for name, native in natives.items():
        shutil.copytree(folder / "bundled", folder / name)
        shutil.copyfile(native, folder / name / "libonnxruntime.so")


def _extract(wheel: Path, prefix: str, folder: Path, names: list[str] | None = None) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            name = member.removeprefix(prefix)
            if member.startswith(prefix) and not member.endswith("/") and (names is None or name in names):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(member))
