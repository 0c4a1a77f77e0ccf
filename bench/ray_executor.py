"""A sweep spread over the machines of a Ray cluster: one cell at a time on each, so that none disturbs another.

Each machine has an actor that reserves all of it, and starts the same worker process for a cell as a run without
Ray does. Models travel with the tasks; onnxtool, in the same version, must be installed everywhere.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxtool._version import __version__
from onnxtool.bench.plan import SOURCE, CellPlan
from onnxtool.bench.runner import run_task
from onnxtool.bench.task import SourceTask, Task
from onnxtool.errors import OnnxtoolError, UsageError, require
from onnxtool.models.onnx.artifact import OnnxModel, first_line
from onnxtool.reports.environment import environment
from onnxtool.reports.model import Cell, Environment

GRACE_S = 60.0
"""Time that a machine has beyond a cell's own limit, which it keeps itself, before it counts as lost."""

CONNECT_S = 10.0
"""Time that a cluster has to answer at all."""

_ON_CARDS = (
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
    "ROCMExecutionProvider",
    "MIGraphXExecutionProvider",
)
"""Providers that a machine without a graphics card has in name only."""


class Machine:
    """The Ray actor that measures on a machine of the cluster."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="onnxtool-")
        self._paths: dict[str, str] = {}

    def describe(self) -> tuple[str, str]:
        """The version of onnxtool here, and the environment as JSON."""
        return __version__, environment().model_dump_json()

    def keep(self, path: str, files: Mapping[str, bytes]) -> None:
        """Write a model here.

        Args:
            path: Its path on the machine that sends it.
            files: Contents by the path relative to the model's folder.
        """
        folder = Path(self._folder.name, str(len(self._paths)))
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        self._paths[path] = str(folder / Path(path).name)

    def close(self) -> None:
        """Remove what was kept."""
        self._folder.cleanup()

    def measure(self, task: Task, timeout_s: float) -> str:
        """Measure one cell, and return it as JSON."""
        model = task.model
        if isinstance(model, SourceTask):
            weights = model.options.weights
            options = replace(model.options, weights=weights and Path(self._paths.get(str(weights), weights)))
            model = replace(model, source=self._paths.get(model.source, model.source), options=options)
        else:
            model = self._paths[model]
        return run_task(replace(task, model=model), timeout_s).model_dump_json()


@dataclass(slots=True)
class Cluster:
    """The machines of a Ray cluster that are ours for the time being.

    Attributes:
        machines: Their environments.
    """

    machines: list[Environment]
    _ray: Any
    _actors: list[Any]

    def execute(
        self,
        plans: Sequence[CellPlan],
        task_of: Callable[[CellPlan], Task],
        timeout_s: float,
        begin: Callable[[CellPlan], None],
    ) -> Iterator[tuple[CellPlan, Cell]]:
        """Measure cells on whichever machine is free and has the provider; see `runner.Execute`.

        A machine that is lost costs the cell that it was measuring; the others take what is left.
        """
        waiting = list(plans)
        free = list(range(len(self._actors)))
        running: dict[Any, tuple[int, CellPlan]] = {}
        sent: set[tuple[int, str]] = set()
        while waiting or running:
            for machine in list(free):
                plan = next((plan for plan in waiting if self._may_run(machine, plan, free, running)), None)
                if plan is None:
                    continue
                waiting.remove(plan)
                free.remove(machine)
                begin(plan)
                running[self._start(machine, task_of(plan), timeout_s, sent)] = machine, plan
            if not running:  # every machine was lost
                for plan in waiting:
                    yield plan, plan.cell("failed", "No machine of the Ray cluster is left to measure it.")
                return
            done, _ = self._ray.wait(list(running), num_returns=1, timeout=timeout_s + GRACE_S)
            for answer in done or list(running):
                machine, plan = running.pop(answer)
                try:
                    cell = Cell.model_validate_json(self._ray.get(answer, timeout=0))
                    free.append(machine)
                except (self._ray.exceptions.RayError, OnnxtoolError) as error:
                    cell = plan.cell("failed", f"Machine {machine + 1} was lost: {first_line(error)}")
                yield plan, cell.model_copy(update={"machine": machine})

    def _start(self, machine: int, task: Task, timeout_s: float, sent: set[tuple[int, str]]) -> Any:
        actor = self._actors[machine]
        for path in _paths_of(task):
            if (machine, path) not in sent:
                actor.keep.remote(path, _files_of(Path(path)))
                sent.add((machine, path))
        return actor.measure.remote(task, timeout_s)

    def _may_run(
        self, machine: int, plan: CellPlan, free: Sequence[int], running: Mapping[Any, tuple[int, CellPlan]]
    ) -> bool:
        """Whether a cell is for this machine: it has the provider, or no machine that is left has."""
        left = [*free, *(place for place, _ in running.values())]
        suitable = [place for place in left if _has(self.machines[place], plan.provider)]
        return machine in suitable or not suitable


@contextmanager
def ray_cluster(address: str | None = None) -> Iterator[Cluster]:
    """Reserve every machine of a Ray cluster.

    Args:
        address: The cluster, as `ray.init` takes it; by default the one that `RAY_ADDRESS` names or that runs
            on this machine, else one of this machine alone.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: the cluster cannot be reached, is busy, or has another version of onnxtool.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when it starts
    ray = require("ray", "ray")
    affinity = require("ray.util.scheduling_strategies", "ray").NodeAffinitySchedulingStrategy
    ours = not ray.is_initialized()
    if ours:
        try:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(f"There is no Ray cluster at {address}: {first_line(error)}") from error
    actors: list[Any] = []
    try:
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            resources = node["Resources"]
            actors.append(
                ray.remote(Machine)
                .options(
                    num_cpus=resources.get("CPU", 0),
                    num_gpus=resources.get("GPU", 0),  # Ray hides GPUs that are not requested
                    scheduling_strategy=affinity(node["NodeID"], soft=False),
                )
                .remote()
            )
        yield Cluster([_described(ray, actor) for actor in actors], ray, actors)
    finally:
        ray.wait([actor.close.remote() for actor in actors], num_returns=len(actors), timeout=CONNECT_S)
        for actor in actors:
            ray.kill(actor)
        if ours:
            ray.shutdown()


def _knock(address: str | None) -> None:
    """Check that something listens at an address; Ray itself would wait for minutes.

    Raises:
        OSError: nothing does.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()


def _described(ray: Any, actor: Any) -> Environment:
    try:
        version, described = ray.get(actor.describe.remote(), timeout=GRACE_S)
    except ray.exceptions.GetTimeoutError as error:
        raise UsageError(
            "A machine of the Ray cluster is busy with other work. Measure when it is idle."
        ) from error
    except ray.exceptions.RayError as error:
        raise UsageError(f"A machine of the Ray cluster cannot run onnxtool: {first_line(error)}") from error
    if version != __version__:
        raise UsageError(
            f"A machine of the Ray cluster has onnxtool {version}, and this one {__version__}. Install the same."
        )
    return Environment.model_validate_json(described)


def _has(machine: Environment, provider: str) -> bool:
    if provider == SOURCE:
        return True
    return provider in machine.providers and (provider not in _ON_CARDS or bool(machine.gpus))


def _paths_of(task: Task) -> list[str]:
    """The files of a task that are on this machine's disk."""
    if not isinstance(task.model, SourceTask):
        return [task.model]
    given = [task.model.source, *([str(task.model.options.weights)] if task.model.options.weights else [])]
    return [path for path in given if Path(path).exists()]  # the others are package.module:callable


def _files_of(path: Path) -> dict[str, bytes]:
    """A model, with the files of external data that it names or, for a folder, all that is in it."""
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file())
    else:
        found = OnnxModel.read(path).files if path.suffix == ".onnx" else [path]
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in found}
