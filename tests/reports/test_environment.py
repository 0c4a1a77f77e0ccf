import os
import platform
import subprocess
import sys
from importlib.metadata import version

import pytest

from onnxtool.reports import environment as module
from onnxtool.reports.environment import environment, in_ci, parse_gpus, usable_cores
from onnxtool.reports.model import Gpu


def test_this_machine():
    found = environment()
    assert found.python.endswith(platform.python_version())
    assert platform.release() in found.os
    assert found.cpu.name
    assert 1 <= found.cpu.usable_cores <= (os.cpu_count() or 1)
    assert found.memory_bytes > 2**28
    assert found.libraries["onnx"] == version("onnx")
    assert "CPUExecutionProvider" in found.providers


def test_affinity_limits_the_usable_cores():
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from onnxtool.reports.environment import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_no_framework_is_imported():
    program = (
        "import sys; from onnxtool.reports.environment import environment; environment(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "tensorflow", "keras", "sklearn", "pandas", "onnx"} & set(done.stdout.split())
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 2),
        ({"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/cpu.max": "50000 100000"}, 1),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"/proc/self/cgroup": "0::/gone\n", "/sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        (
            {
                "/proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x\n",
                "/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "300000",
                "/sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        ({"/proc/self/cgroup": "4:cpu:/\n", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1"}, 8),
        ({}, 8),
    ],
)
def test_quotas_of_control_groups(files: dict[str, str], cores: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_read", lambda path: files.get(str(path), ""))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/memory.max": "1048576"}, 1048576),
        ({"/proc/self/cgroup": "4:memory:/a\n", "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "4096"}, 4096),
        ({"/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/memory.max": "max"}, None),
        ({"/proc/self/cgroup": "4:memory:/\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9" * 19}, None),
    ],
)
def test_memory_of_control_groups(files: dict[str, str], limit: int | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_read", lambda path: files.get(str(path), ""))
    assert module.usable_memory() == (limit or module.psutil.virtual_memory().total)


def test_graphics_cards_as_the_driver_lists_them():
    listing = "NVIDIA H100 80GB HBM3, 560.35.03, 81559\nNVIDIA GB10, Grace, 580.95, [N/A]\n\ngarbage\n"
    assert parse_gpus(listing) == [
        Gpu(name="NVIDIA H100 80GB HBM3", driver="560.35.03", memory_bytes=81559 * 2**20),
        Gpu(name="NVIDIA GB10, Grace", driver="580.95", memory_bytes=None),
    ]


def test_without_a_driver_there_is_no_card(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert module.gpus() == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, False), ({"CI": "true"}, True), ({"CI": "false"}, False), ({"JENKINS_URL": "http://ci"}, True)],
)
def test_continuous_integration(variables: dict[str, str], expected: bool):
    assert in_ci(variables) is expected
