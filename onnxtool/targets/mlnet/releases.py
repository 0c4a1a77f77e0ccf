"""Releases of ML.NET: the ONNX Runtime that each is built with, and that runtime's limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from onnxtool.errors import UsageError

_VERSIONING = "ONNX Runtime's docs/Versioning.md"
_MEASURED = "measured with {}"


@dataclass(frozen=True, slots=True)
class Release:
    """A release of ML.NET, and all that follow up to the next row.

    Attributes:
        version: The first release that this row is true of.
        runtime: Version of the managed ONNX Runtime that it is built with. The native package is the project's own
            choice, but not older; a newer one raises the limits.
        opset: Highest version of the default operator set.
        ml_opset: Highest version of `ai.onnx.ml`.
        ir_version: Highest IR version.
        source: Where the limits come from. The runtime's version is read from dotnet/machinelearning at the
            release's tag: `build/Dependencies.props` up to 1.5.2, `eng/Versions.props` since.
    """

    version: str
    runtime: str
    opset: int
    ml_opset: int
    ir_version: int
    source: str

    def before(self, version: str) -> bool:
        """Whether this is older than another release."""
        return Version(self.version) < Version(version)


RELEASES = (
    Release("1.5.0-preview2", "1.2.0", 11, 2, 6, _MEASURED.format("the library that nimbusml 1.8.0 bundles")),
    Release("1.5.0", "1.3.0", 12, 2, 6, _VERSIONING),
    Release("1.5.4", "1.6.0", 13, 2, 7, _VERSIONING),
    Release("2.0.0", "1.10.0", 15, 2, 8, _MEASURED.format("npm's onnxruntime-node 1.10.0")),
    Release("3.0.0", "1.14.0", 18, 3, 8, _MEASURED.format("npm's onnxruntime-node 1.14.0")),
    Release("4.0.0", "1.18.1", 21, 5, 10, _MEASURED.format("PyPI's onnxruntime 1.18.1")),
    Release("5.0.0", "1.23.2", 23, 5, 11, _MEASURED.format("PyPI's onnxruntime 1.23.2")),
    Release("5.0.1", "1.31.1", 26, 5, 13, _MEASURED.format("ML.NET 5.0.1 and the native package 1.31.1")),
)
NEWEST = RELEASES[-1]


@dataclass(frozen=True, slots=True)
class Deployment:
    """The release of ML.NET, and the folder of the model.

    Attributes:
        release: Release of ML.NET.
        folder: Folder of the model's file, where external data lies.
    """

    release: Release = NEWEST
    folder: Path = Path()


def find_release(version: str | None) -> Release:
    """The limits of a release, by its version as in `3.0.1` or `4`; the newest by default.

    Raises:
        UsageError: there is no such version, or nothing is known of it.
    """
    if version is None:
        return NEWEST
    try:
        requested = Version(version)
    except InvalidVersion as error:
        raise UsageError(f"--mlnet-version {version!r} is no version, as {NEWEST.version} is.") from error
    known = [release for release in RELEASES if Version(release.version) <= requested]
    if not known or requested.major > Version(NEWEST.version).major:
        raise UsageError(
            f"--mlnet-version {version}: known are {RELEASES[0].version} to {Version(NEWEST.version).major}.x. "
            f"For a newer release, {NEWEST.version} keeps on the safe side."
        )
    return known[-1]
