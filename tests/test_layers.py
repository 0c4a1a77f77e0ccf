"""The layers: kept by import-linter, shown in CONTRIBUTING.md, and packaged whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LAYERS = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
SETUPTOOLS = PROJECT["tool"]["setuptools"]
TOP = ("bench", "converters", "models", "reports", "validators")
"""Folders of packages that stand at the top of the repository."""


def test_contributing_shows_the_layers_of_pyproject() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = re.search(r"^## Layers\n.*?^```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert picture
    shown = [re.split(" {2,}", line)[0] for line in picture[1].splitlines()]
    assert [layer for line in shown for layer in line.split(" > ")] == LAYERS


def test_every_folder_of_code_is_a_package_of_the_project() -> None:
    folders = {"onnxtool": ROOT / "onnxtool", **{f"onnxtool.{name}": ROOT / name for name in TOP}}
    found = {}
    for package, folder in folders.items():
        for file in folder.rglob("*.py"):  # does not follow the links in onnxtool/
            place = file.parent.relative_to(folder)
            found[".".join((package, *place.parts))] = file.parent.relative_to(ROOT).as_posix()
    assert sorted(found) == SETUPTOOLS["packages"]
    moved = {name: place for name, place in found.items() if not place.startswith("onnxtool/")}
    assert SETUPTOOLS["package-dir"] == moved
    assert all((ROOT / place / "__init__.py").is_file() for place in found.values())
    links = {path.name: path.readlink().as_posix() for path in (ROOT / "onnxtool").iterdir() if path.is_symlink()}
    assert links == {name: f"../{name}" for name in TOP}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and pyproject.toml, to be changed."""
    folder = tmp_path_factory.mktemp("layers")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in ("onnxtool", *TOP):
        ignored = shutil.ignore_patterns("__pycache__", "coverage", "reliability")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    return folder


@pytest.mark.parametrize(
    ("module", "imported", "found"),
    [
        ("models/signature.py", None, "2 kept, 0 broken"),
        ("models/signature.py", "onnxtool.cli", "onnxtool.models is not allowed to import onnxtool.cli"),
        ("onnxtool/errors.py", "onnxtool.files", "onnxtool.errors is not allowed to import onnxtool.files"),
        ("models/source.py", "onnxtool.models.keras", "No circles between packages BROKEN"),
        ("onnxtool/rooms.py", "numpy", "onnxtool.rooms"),  # a module of no layer
    ],
)
def test_import_linter_sees_a_broken_layer(copy: Path, module: str, imported: str | None, found: str) -> None:
    path = copy / module
    before = path.read_text(encoding="utf-8") if path.exists() else None
    if imported:
        path.write_text(f"{before or ''}\nimport {imported}\n", encoding="utf-8")
    try:
        done = subprocess.run(
            [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
            cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before, encoding="utf-8")
    assert (done.returncode != 0) == bool(imported), done.stdout + done.stderr
    assert found in " ".join((done.stdout + done.stderr).split())
