"""A run: the numbers of one model from one report, with the commit and the machine that they belong to."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxtool.errors import DataError
from onnxtool.reports import json as report_json
from onnxtool.reports import units
from onnxtool.reports.model import Environment, Report
from onnxtool.reports.scalars import scalars

COMMIT_VARIABLES = ("GITHUB_SHA", "CI_COMMIT_SHA", "BUILD_SOURCEVERSION", "GIT_COMMIT", "BITBUCKET_COMMIT")
BRANCH_VARIABLES = (
    "GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "BUILD_SOURCEBRANCHNAME", "GIT_BRANCH",
    "BITBUCKET_BRANCH",
)  # fmt: skip
"""Of GitHub, GitLab, Azure Pipelines, Jenkins and Bitbucket, which check out a commit without its branch."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What was measured, as version control names it.

    Attributes:
        id: Its hash; empty where there is none.
        branch: Name of the branch; empty where it is not known.
        time_s: When it was committed, in seconds since 1970; None where that is not known.
    """

    id: str = ""
    branch: str = ""
    time_s: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """The numbers of one model in one run.

    Attributes:
        model: Name of the model.
        machine: Description of the machine; runs of different ones are never compared.
        commit: The commit that was measured.
        created_s: When, in seconds since 1970.
        numbers: Name to number, as in `reports.scalars`: times in seconds, sizes in bytes.
        passed: Whether every gate passed; None where there was none.
    """

    model: str
    machine: str
    commit: Commit
    created_s: float
    numbers: Mapping[str, float]
    passed: bool | None = None

    @property
    def digest(self) -> str:
        """Equal for the same run that comes twice."""
        content = [self.model, self.machine, self.commit.id, self.created_s, sorted(self.numbers.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def commit_here(folder: Path, variables: Mapping[str, str] = os.environ) -> Commit:
    """The commit that is checked out in a folder, by the environment of continuous integration and by git."""

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=20
            )
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    def first(names: tuple[str, ...]) -> str:
        return next((variables[name] for name in names if variables.get(name)), "")

    commit = first(COMMIT_VARIABLES) or git("rev-parse", "HEAD")
    time = git("show", "-s", "--format=%ct", commit) if commit else ""
    return Commit(
        commit, first(BRANCH_VARIABLES) or git("branch", "--show-current"), float(time) if time.isdigit() else None
    )


def machine_of(environment: Environment) -> str:
    """A machine in words: what makes two of them run at different speeds.

    Releases of the kernel and of libraries are not in it: that they made a model slower is what a history shows.
    """
    cpu = environment.cpu
    cards = ", ".join(gpu.name for gpu in environment.gpus)
    system = environment.os.partition(" ")[0]
    memory = f"{round(environment.memory_bytes / 2**30)} GiB"
    cores = units.plural(cpu.usable_cores, "core")
    return ", ".join([f"{cpu.name} ({cpu.architecture})", cores, memory, system, *([cards] if cards else [])])


def runs_of(report: Report, commit: Commit) -> Iterator[Run]:
    """The runs in a report, one for each model."""
    for subject in report.subjects:
        yield Run(
            subject.name,
            machine_of(report.environment),
            commit,
            report.created.timestamp(),
            {name: value for name, value in scalars(subject).items() if math.isfinite(value)},
            all(check.passed for check in subject.checks) if subject.checks else None,
        )


def read_runs(path: Path, commit: Commit) -> list[Run]:
    """The runs in a file: a report of ours, or the JSON of pytest-benchmark or asv, which name their own commit.

    Raises:
        DataError: it is none of these.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}.") from error
    try:
        if isinstance(content, dict) and "commit_info" in content:
            return list(_of_pytest_benchmark(content))
        if isinstance(content, dict) and "commit_hash" in content:
            return list(_of_asv(content))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}.") from error
    return list(runs_of(report_json.read(path), commit))


def _of_pytest_benchmark(content: Any) -> Iterator[Run]:
    """See `pytest_benchmark.session` and its files `.benchmarks/*/*.json`."""
    about, machine = content["commit_info"], content["machine_info"]
    time = about.get("time") and datetime.datetime.fromisoformat(about["time"]).timestamp()
    commit = Commit(about["id"], about.get("branch") or "", time)
    cpu = machine.get("cpu") or {}
    name = f"{cpu.get('brand_raw', machine.get('processor', ''))} ({machine['machine']}), {machine['system']}"
    created = datetime.datetime.fromisoformat(content["datetime"]).timestamp()
    for benchmark in content["benchmarks"]:
        stats = benchmark["stats"]
        numbers = {f"bench/{field}_s": float(stats[field]) for field in ("median", "min") if field in stats}
        yield Run(benchmark["fullname"], name, commit, created, numbers)


def _of_asv(content: Any) -> Iterator[Run]:
    """See asv's documentation, "Result files", version 2 of the format."""
    params = content["params"]
    name = (
        f"{params.get('cpu', '')} ({params.get('arch', '')}), {params.get('machine', '')}, {params.get('os', '')}"
    )
    commit = Commit(content["commit_hash"], "", content["date"] / 1000)
    columns = content.get("result_columns", ["result", "params"])
    for benchmark, row in content["results"].items():
        found = dict(zip(columns, row if isinstance(row, list) else [row], strict=False))
        values = found["result"] if isinstance(found["result"], list) else [found["result"]]
        names = _combined(found.get("params") or [])
        numbers = {
            f"bench/{', '.join(name) or 'all'}/median_s": float(value)
            for name, value in zip(names, values, strict=False)
            if isinstance(value, int | float)
        }
        if numbers:
            yield Run(benchmark, name, commit, content["date"] / 1000, numbers)


def _combined(params: list[list[str]]) -> list[tuple[str, ...]]:
    combined: list[tuple[str, ...]] = [()]
    for values in params:
        combined = [(*before, value) for before in combined for value in values]
    return combined


@dataclass(frozen=True, slots=True)
class Series:
    """One number of one model on one machine and branch, in the order of commits.

    Attributes:
        model: Name of the model.
        machine: Description of the machine.
        name: Name of the number.
        values: The numbers.
        commits: The commit of each.
        times_s: When each was measured.
    """

    model: str
    machine: str
    name: str
    values: list[float] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
