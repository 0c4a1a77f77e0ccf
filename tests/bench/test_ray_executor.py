"""A real Ray cluster of two machines, which are both this one."""

import os
import signal
import time

import joblib
import numpy as np
import onnx
import psutil
import pytest
from sklearn.linear_model import LogisticRegression

import onnxtool
from onnxtool.bench.ray_executor import ray_cluster
from onnxtool.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    running = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 2**27},
    )
    running.add_node(num_cpus=1, object_store_memory=2**27)
    yield running.address
    ray.shutdown()
    running.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with external data, and its source."""
    folder = tmp_path_factory.mktemp("ray")
    joblib.dump(LogisticRegression().fit(X, X[:, 0] > 0), folder / "source.joblib")
    assert onnxtool.convert(str(folder / "source.joblib"), folder / "inline.onnx", data=X)
    proto = onnx.load(folder / "inline.onnx")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(4096, np.float32), "unused"))
    onnx.save(
        proto, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=1024
    )
    assert (folder / "weights.bin").is_file()
    return folder / "model.onnx"


def test_cells_are_spread_and_say_where_they_ran(cluster, model):
    reports = []
    report = onnxtool.bench(
        model, data=X, batches=[1, 2, 4], threads=[1], duration=0.05,
        source=str(model.with_name("source.joblib")), executor="ray", ray_address=cluster, on_report=reports.append,
    )  # fmt: skip
    assert report
    bench = report.subjects[0].bench
    assert [cell.status for cell in bench.cells] == ["measured"] * 6
    assert {cell.machine for cell in bench.cells} == {0, 1}
    assert len(bench.machines) == 2
    assert bench.machines[0].cpu == report.environment.cpu
    assert len(reports) == 6


def test_a_provider_that_no_machine_has_is_unavailable(cluster, model):
    report = onnxtool.bench(
        model, data=X, providers=["cpu", "cuda"], duration=0.05, executor="ray", ray_address=cluster
    )
    statuses = {cell.provider: cell.status for cell in report.subjects[0].bench.cells}
    assert statuses == {"CPUExecutionProvider": "measured", "CUDAExecutionProvider": "unavailable"}


def test_a_lost_machine_costs_its_cell_alone(cluster, model):
    killed = []

    def kill(stage, done, total):
        """End the first machine's process once it measures."""
        if done == 1 and not killed:
            actors = [
                p for p in psutil.process_iter(["cmdline"]) if "ray::Machine" in " ".join(p.info["cmdline"] or ())
            ]
            time.sleep(0.2)
            killed.append(actors[0].pid)
            os.kill(actors[0].pid, signal.SIGKILL)

    report = onnxtool.bench(
        model,
        data=X,
        batches=[1, 2, 3, 4, 5, 6],
        duration=0.5,
        executor="ray",
        ray_address=cluster,
        on_progress=kill,
    )
    assert killed
    statuses = [cell.status for cell in report.subjects[0].bench.cells]
    assert statuses.count("failed") == 1
    assert statuses.count("measured") == 5
    lost = next(cell for cell in report.subjects[0].bench.cells if cell.status == "failed")
    assert "was lost" in lost.reason
    assert not report


def test_no_actor_is_left(cluster):
    with ray_cluster(cluster) as ours:
        assert len(ours.machines) == 2
    with ray_cluster(cluster) as ours:  # they were given back
        assert len(ours.machines) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ray_address": "127.0.0.1:1"}, "the executor is not Ray"),
        ({"executor": "ray", "resume": "r.json"}, "on one machine"),
        ({"executor": "ray", "against": "a.onnx"}, "on one machine"),
    ],
)
def test_what_does_not_fit_is_refused(model, arguments, message):
    with pytest.raises(UsageError, match=message):
        onnxtool.bench(model, **arguments)


def test_a_cluster_that_is_not_there_is_one_error(model):
    with pytest.raises(UsageError, match="no Ray cluster at"):
        onnxtool.bench(model, executor="ray", ray_address="127.0.0.1:1")
