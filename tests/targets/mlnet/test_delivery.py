"""A bundle in a repository, in a solution and in a package, as teams pass code on."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import onnxtool


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The folder of a bundle."""
    folder = tmp_path_factory.mktemp("delivery")
    rows, truth = load_iris(return_X_y=True)
    model, data = LogisticRegression(max_iter=500).fit(rows, truth), rows.astype(np.float32)
    assert onnxtool.convert(model, folder / "flower.onnx", target="mlnet", data=data, sandbox=None)
    assert onnxtool.bundle(
        folder / "flower.onnx", model, folder / "bundle", data=data, duration=0.01, sandbox=None
    )
    return folder / "bundle"


def _run(*command, cwd):
    settings = {
        "DOTNET_CLI_USE_MSBUILD_SERVER": "0",
        "MSBUILDDISABLENODEREUSE": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    words = list(map(str, command))
    done = subprocess.run(
        words, cwd=cwd, env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_clone_that_changes_line_ends_leaves_the_files_as_they_are(bundle, tmp_path):
    work = shutil.copytree(bundle, tmp_path / "work")
    _run("git", "init", "-q", cwd=work)
    _run("git", "add", "-A", cwd=work)
    _run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "bundle", cwd=work)
    _run("git", "clone", "-q", "-c", "core.autocrlf=true", work, tmp_path / "clone", cwd=tmp_path)
    names = [*json.loads((bundle / "manifest.json").read_text())["files"], "manifest.json"]
    assert ".gitattributes" in names
    assert all((tmp_path / "clone" / name).read_bytes() == (bundle / name).read_bytes() for name in names)


PROGRAM = """
using var scorer = new FlowerOnnx.FlowerScorer();
System.Console.WriteLine(scorer.Score(new FlowerOnnx.FlowerInput { X = [5.1f, 3.5f, 1.4f, 0.2f] }).Label[0]);
"""


def test_a_package_brings_the_model_to_a_program_without_the_bundle(bundle, tmp_path, dotnet):
    work = shutil.copytree(bundle, tmp_path / "bundle")
    _run(dotnet, "pack", "-nologo", "-v", "q", work, "-p:Version=1.2.3", "-o", tmp_path / "feed", cwd=tmp_path)
    assert [path.name for path in (tmp_path / "feed").iterdir()] == ["FlowerOnnx.1.2.3.nupkg"]
    program = tmp_path / "program"
    program.mkdir()
    (program / "Program.cs").write_text(PROGRAM)
    (program / "Program.csproj").write_text(
        '<Project Sdk="Microsoft.NET.Sdk"><PropertyGroup><OutputType>Exe</OutputType>'
        "<TargetFramework>net10.0</TargetFramework><TreatWarningsAsErrors>true</TreatWarningsAsErrors>"
        f"<RestoreAdditionalProjectSources>{tmp_path / 'feed'}</RestoreAdditionalProjectSources>"
        f"<RestorePackagesPath>{tmp_path / 'packages'}</RestorePackagesPath></PropertyGroup>"
        '<ItemGroup><PackageReference Include="FlowerOnnx" Version="1.2.3" /></ItemGroup></Project>'
    )
    shutil.rmtree(work)
    assert _run(dotnet, "run", cwd=program) == "0\n"
