"""What `onnxtool doctor` finds in installations that are in order, and in those that are not."""

import platform
import sys

import pytest

from onnxtool.doctor import examine
from onnxtool.sandbox import landlock


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Make a distribution count as installed, as pip's record of it does."""

    def install(name, version="1.31.1"):
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_an_installation_in_order_runs_a_model_on_the_cpu_and_says_what_it_has():
    found = examine()
    assert found.healthy
    usable = {provider.name: provider.usable for provider in found.providers}
    assert usable["CPUExecutionProvider"]
    assert set(usable) >= {"CUDAExecutionProvider", "TensorrtExecutionProvider"}
    assert all(provider.usable or provider.reason for provider in found.providers)
    extras = {extra.name: extra for extra in found.extras}
    assert extras["keras"].installed.keys() >= {"keras", "tf2onnx"}  # through onnxtool[tensorflow]
    assert not extras["torch"].missing
    linux = sys.platform == "linux"
    enforced = [linux, linux and landlock.version() > 0, linux and platform.machine() in ("x86_64", "aarch64")]
    assert len(found.sandbox) == enforced.count(False)


def test_two_builds_of_onnx_runtime_overwrite_each_other(distribution):
    distribution("onnxruntime-gpu")
    found = examine()
    assert not found.healthy
    assert found.providers == []
    (problem,) = found.problems
    assert "onnxruntime and onnxruntime-gpu are both installed" in problem
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu" in problem
