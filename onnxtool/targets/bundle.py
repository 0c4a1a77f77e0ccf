"""Folders that a target's software can use as they stand: how they are written, whichever target they are for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from onnxtool._version import __version__
from onnxtool.errors import OutputError
from onnxtool.files import check_writable, scratch_next_to, writing
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.source import SourceModel, sha256
from onnxtool.reports.model import Check, Record, Report
from onnxtool.targets.golden import Golden


class Origin(Record):
    """The source model that the ONNX model was converted from."""

    framework: str
    framework_version: str
    kind: str = Field(description="Class of the model.")
    sha256: str | None = None

    @classmethod
    def of(cls, source: SourceModel) -> Origin:
        """Describe a source."""
        return cls(
            framework=source.framework,
            framework_version=source.framework_version,
            kind=source.kind,
            sha256=sha256(source.path) if source.path else None,
        )


class Manifest(Record):
    """The common fields of a bundle's `manifest.json`. A folder with the same target as `format` can be replaced."""

    schema_version: str
    tool_version: str = __version__
    format: str = Field(description="Name of the target.")
    files: dict[str, str] = Field(
        default={}, description="Path in the bundle to SHA-256, for every file but this one."
    )


@dataclass(frozen=True, slots=True)
class Proof:
    """A model that passed every gate, with its results for the bundle.

    Attributes:
        model: The ONNX model, in its file.
        source: What it was converted from.
        golden: Rows, and the source's answers.
        report: On this model alone.
        fixed: Dynamic dimensions that have but the size of the golden rows, since the user says so.
    """

    model: OnnxModel
    source: SourceModel
    golden: Golden
    report: Report
    fixed: Set[str] = frozenset()


def check_replaceable(folder: Path, target: str, force: bool, kept: Sequence[Path] = ()) -> None:
    """Find out, before any work, whether the bundle can be written.

    Args:
        folder: The bundle. One that is there already is replaced as a whole.
        target: Its name.
        force: Whether a folder that is no bundle may be replaced too.
        kept: Files that must not be lost by that.

    Raises:
        OutputError: it cannot; the message says why.
    """
    if not folder.exists():
        check_writable(folder)
    elif not folder.is_dir():
        raise OutputError(f"Cannot write {folder}: it is a file. Name a folder.")
    elif not _is_bundle(folder, target):
        if not force:
            raise OutputError(
                f"Cannot write {folder}: it exists and is no bundle. Name another folder, or replace it and "
                "all that is in it with --force."
            )
        inside = [path for path in (Path.cwd(), *kept) if path.resolve().is_relative_to(folder.resolve())]
        if inside:
            raise OutputError(
                f"Cannot write {folder}: --force would delete {inside[0]} with it. Name another folder."
            )


def write_bundle(
    folder: Path, fill: Callable[[Path], Manifest], accept: Callable[[Path], Check] | None = None
) -> Check | None:
    """Write a bundle; an interrupted run leaves the old folder or none.

    Args:
        folder: As for `check_replaceable`, which comes first.
        fill: See `Target.bundle`.
        accept: See `Target.acceptance`; None does not run the target's software.

    Returns:
        What `accept` returned. Where it did not pass, nothing is written.

    Raises:
        ModelError: from `fill`.
        UsageError: from `accept`.
        OutputError: the folder cannot be written.
    """
    with writing(folder), scratch_next_to(folder) as scratch:
        staged = scratch / "new"  # the temporary folder itself is its owner's alone
        staged.mkdir()
        manifest = fill(staged)
        files = {path.relative_to(staged).as_posix(): path for path in staged.rglob("*") if path.is_file()}
        manifest.files = {name: sha256(files[name]) for name in sorted(files)}
        text = manifest.model_dump_json(indent=2) + "\n"
        (staged / "manifest.json").write_text(text, encoding="utf-8", newline="\n")
        check = accept(shutil.copytree(staged, scratch / "trial")) if accept else None
        if check is None or check.passed:
            _put_in_place(staged, folder)
    return check


def _is_bundle(folder: Path, target: str) -> bool:
    try:
        content = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == target and "tool_version" in content


def _put_in_place(staged: Path, folder: Path) -> None:
    old = staged.with_name("old")
    if folder.exists():
        folder.rename(old)
    try:
        staged.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
