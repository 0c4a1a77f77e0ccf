"""A bundle for ML.NET run by the .NET SDK: its own Check program scores the golden rows in ML.NET."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from onnxtool.errors import UsageError
from onnxtool.reports.model import Check

_TIMEOUT_S = 900
_SETTINGS = {
    "DOTNET_CLI_TELEMETRY_OPTOUT": "1",
    "DOTNET_NOLOGO": "1",
    # Servers that would go on after the run.
    "DOTNET_CLI_USE_MSBUILD_SERVER": "0",
    "MSBUILDDISABLENODEREUSE": "1",
    "UseSharedCompilation": "false",
}
_ERROR = re.compile(r"\berror (\w+): (.*?)(?: \[[^\]]*\])?$", re.MULTILINE)


def acceptance() -> Callable[[Path], Check]:
    """See `Target.acceptance`.

    Raises:
        UsageError: there is no .NET SDK on the PATH.
    """
    dotnet = shutil.which("dotnet")
    if dotnet is None:
        raise UsageError(
            "--accept runs the bundle in ML.NET, and dotnet is not on the PATH. Install the .NET SDK, "
            "https://dotnet.microsoft.com/download, or leave out --accept."
        )
    return lambda folder: _accept(folder, dotnet)


def _accept(folder: Path, dotnet: str) -> Check:
    [project] = folder.glob("*.Check/*.csproj")
    restored = _run(folder, dotnet, "restore", project)
    if restored.returncode:
        raise UsageError(
            f"--accept: dotnet cannot restore the bundle's packages: {_message(restored)}\n"
            "Give dotnet a NuGet source that has them, or leave out --accept."
        )
    for arguments in (("build", "--no-restore", project), ("run", "--no-build", "--project", project)):
        done = _run(folder, dotnet, *arguments)
        if done.returncode:
            break
    return Check(id="acceptance", passed=done.returncode == 0, message=f"ML.NET: {_message(done)}")


def _run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [str(word) for word in command],
            cwd=folder,
            env={**os.environ, **_SETTINGS},
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"--accept: dotnet {command[1]} did not end within {_TIMEOUT_S} s.") from error


def _message(done: subprocess.CompletedProcess[str]) -> str:
    """The message of a build or program: its first error, else its first line if it failed, else its last."""
    if error := _ERROR.search(done.stdout):
        return f"{error[2]} ({error[1]})"
    failed = done.returncode != 0
    lines = ((failed and done.stderr.strip()) or done.stdout.strip()).splitlines()
    return lines[0 if failed else -1] if lines else f"exit status {done.returncode}, without output"
