"""The machine and the software that a report was made on."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from onnxtool.reports.model import Cpu, Environment, Gpu
from onnxtool.system import bound_cores

DISTRIBUTIONS = (
    "onnx", "onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino",
    "numpy", "scipy", "pandas", "scikit-learn", "skl2onnx", "onnxmltools", "skops", "joblib",
    "xgboost", "xgboost-cpu", "lightgbm", "catboost",
    "torch", "onnxscript", "safetensors",
    "tensorflow", "tensorflow-cpu", "keras", "tf2onnx",
    "onnxsim", "protobuf", "ml_dtypes",
)  # fmt: skip
"""Distributions whose version may change a result or a time."""

CI_VARIABLES = ("CI", "BUILD_BUILDID", "JENKINS_URL", "TEAMCITY_VERSION")
"""Set by continuous integration: most systems set CI; Azure Pipelines, Jenkins and TeamCity do not."""


def environment() -> Environment:
    """Describe this machine, this process's share of it, and the installed libraries.

    Nothing but ONNX Runtime is imported, and nothing fails for being absent.
    """
    return Environment(
        os=_os(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        cpu=Cpu(
            name=_cpu_name(),
            architecture=platform.machine(),
            physical_cores=psutil.cpu_count(logical=False),
            logical_cores=psutil.cpu_count(),
            usable_cores=usable_cores(),
        ),
        memory_bytes=usable_memory(),
        gpus=gpus(),
        libraries=_libraries(),
        providers=_providers(),
        ci=in_ci(os.environ),
    )


def usable_cores() -> int:
    """Cores that this process may use: its affinity and its control group's quota (rounded up) both bind."""
    bound = bound_cores()
    return max(1, min(bound, math.ceil(min(_cpu_quotas(), default=bound))))


def usable_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less where its control group has a limit."""
    limits = [*_limits("memory", "memory.max"), *_limits("memory", "memory.limit_in_bytes")]
    total: int = psutil.virtual_memory().total
    return min([total, *(int(limit) for limit in limits if limit.isdigit())])


def gpus() -> list[Gpu]:
    """NVIDIA's graphics cards, as its driver names them; none without the driver."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(done.stdout)


def parse_gpus(listing: str) -> list[Gpu]:
    """Read what `nvidia-smi` lists: name, driver, memory in MiB, a card a line; memory may be [N/A]."""
    found = []
    for line in listing.splitlines():
        fields = [field.strip() for field in line.rsplit(",", 2)]
        if len(fields) == 3:
            name, driver, mebibytes = fields
            memory = int(mebibytes) * 2**20 if mebibytes.isdigit() else None
            found.append(Gpu(name=name, driver=driver, memory_bytes=memory))
    return found


def in_ci(variables: Mapping[str, str]) -> bool:
    """Whether environment variables indicate continuous integration."""
    return any(variables.get(name, "").lower() not in ("", "0", "false") for name in CI_VARIABLES)


def _os() -> str:
    kernel = f"{platform.system()} {platform.release()}"
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]} ({kernel})"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']} ({kernel})"
    except (OSError, KeyError):
        return kernel


def _cpu_name() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        key, _, name = line.partition(":")
        if key.strip() in ("model name", "Model") and name.strip():
            return name.strip()
    if sys.platform == "darwin":
        try:
            query = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    return platform.processor() or platform.machine() or "unknown"


def _libraries() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _providers() -> list[str]:
    try:
        import onnxruntime
    except Exception:  # absent, or broken by a second build of it: neither is this function's business
        return []
    return list(onnxruntime.get_available_providers())


def _cpu_quotas() -> Iterator[float]:
    """Cores' worth of time that each control group above this process allows."""
    for text in _limits("cpu", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota != "max":
            yield int(quota) / int(period or 100_000)
    quotas, periods = _limits("cpu", "cpu.cfs_quota_us"), _limits("cpu", "cpu.cfs_period_us")
    for quota, period in zip(quotas, periods, strict=False):
        if int(quota) > 0:
            yield int(quota) / int(period)


def _limits(controller: str, file: str) -> Iterator[str]:
    """Content of a file in this process's control group and in each parent group, for cgroups v1 and v2."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, names, group = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        root = Path("/sys/fs/cgroup", names and controller)
        # Within a container the group's path is often the host's: only the root is there to be read.
        for folder in (root / group.lstrip("/"), *(root / group.lstrip("/")).parents):
            text = _read(folder / file).strip()
            if text:
                yield text
            if folder == root:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
