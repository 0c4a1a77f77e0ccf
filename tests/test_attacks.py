"""Files that mean harm, through the command line as a user runs it: SECURITY.md names each of these tests."""

import json
import os
import re
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import joblib
import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from onnxtool import Limits, convert
from onnxtool.errors import SourceError

MEMORY = 1 << 30


def onnxtool(folder, *arguments, memory=None):
    """Run a command in a folder, within so many bytes of memory if any."""
    return subprocess.run(
        [Path(sys.executable).with_name("onnxtool"), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        # Each thread's stack counts as memory, and many cores have many threads.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"} if memory else None,
        preexec_fn=memory and (lambda: resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))),
    )


def relu(weights=None, name="node"):
    """x + weights, or relu(x): the weights are external at a location."""
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    operator, feeds, kept = ("Relu", ["x"], []) if weights is None else ("Add", ["x", "w"], [weights])
    node = onnx.helper.make_node(operator, feeds, ["y"], name=name)
    graph = onnx.helper.make_graph([node], "graph", [x], [y], kept)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def stored_at(location):
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.fixture
def secret(tmp_path):
    """A file of the user's, next to the folder of the model."""
    (tmp_path / "model").mkdir()
    path = tmp_path / "secret"
    np.arange(4, dtype=np.float32).tofile(path)
    return path


VERBS = {
    "inspect": ["inspect", "m.onnx"],
    "lint": ["lint", "m.onnx"],
    "verify": ["verify", "m.onnx", "m.onnx"],
    "convert": ["convert", "m.onnx", "-o", "out.onnx"],
    "bench": ["bench", "m.onnx"],
    "bundle": ["bundle", "m.onnx", "m.onnx", "-o", "bundle"],
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("way", ["climbing", "absolute", "link"])
def test_external_data_outside_of_the_folder_is_not_read(secret, verb, way):
    folder = secret.parent / "model"
    location = {"climbing": "../secret", "absolute": str(secret), "link": "weights"}[way]
    if way == "link":
        (folder / "weights").symlink_to(secret)
    (folder / "m.onnx").write_bytes(relu(stored_at(location)).SerializeToString())
    before = sorted(folder.iterdir())
    done = onnxtool(folder, *VERBS[verb])
    assert done.returncode == 2
    assert "outside of its folder; nothing was read there" in done.stderr
    assert sorted(folder.iterdir()) == before


def test_external_data_inside_of_the_folder_is_read(secret):
    folder = secret.parent / "model"
    (folder / "deep").mkdir()
    secret.rename(folder / "deep" / "weights")
    (folder / "m.onnx").write_bytes(relu(stored_at("deep/weights")).SerializeToString())
    assert onnxtool(folder, *VERBS["verify"]).returncode == 0


def test_weights_that_onnx_does_not_read_are_one_error(secret):
    folder = secret.parent / "model"
    (folder / "weights").hardlink_to(secret)
    (folder / "m.onnx").write_bytes(relu(stored_at("weights")).SerializeToString())
    done = onnxtool(folder, *VERBS["convert"])
    assert done.returncode == 2
    assert "hard link" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_operator_of_a_custom_library_is_not_looked_for(tmp_path):
    model = relu()
    model.graph.node[0].domain = "evil"
    model.opset_import.add(domain="evil", version=1)
    model.metadata_props.add(key="custom_op_library", value="./evil.so")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "evil.so").write_bytes(b"\x7fELF")
    done = onnxtool(tmp_path, *VERBS["verify"])
    assert done.returncode == 2
    assert "ONNX Runtime refuses" in done.stderr


def test_rows_that_expand_beyond_memory_go_through_in_pieces(tmp_path):
    model = relu()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = 4096
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    rows, block = 40960, bytes(1 << 24)
    with (
        zipfile.ZipFile(tmp_path / "rows.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as file,
    ):
        header = {"descr": "<f8", "fortran_order": False, "shape": (rows, 4096)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(rows * 4096 * 8 // len(block)):
            file.write(block)
    assert (tmp_path / "rows.npz").stat().st_size < 2 << 20
    done = onnxtool(tmp_path, *VERBS["verify"], "--data", "rows.npz", memory=MEMORY)
    assert done.returncode == 0, done.stderr


def test_an_array_that_lies_about_its_size_is_one_error(tmp_path):
    (tmp_path / "m.onnx").write_bytes(relu().SerializeToString())
    with (tmp_path / "rows.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 4)})
    done = onnxtool(tmp_path, *VERBS["verify"], "--data", "rows.npy", memory=MEMORY)
    assert done.returncode == 2
    assert "cut short" in done.stderr


def test_a_source_that_expands_beyond_its_memory_is_one_error(tmp_path):
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    model.ballast = np.zeros(100_000_000)
    joblib.dump(model, tmp_path / "m.joblib", compress=1)
    done = onnxtool(tmp_path, "convert", "m.joblib", "--sandbox-memory", "512MiB")
    assert done.returncode == 2
    assert "more than 512 MiB of memory" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["m.joblib"]


def test_even_a_trusted_source_reaches_neither_files_nor_network(tmp_path):
    """With `--trust` a pickle may run code: it is confined all the same."""
    (tmp_path / "secret").write_text("token")

    class Own:
        def __reduce__(self):
            return os.listdir, (str(tmp_path),)

    joblib.dump(Own(), tmp_path / "m.joblib")
    refused = onnxtool(tmp_path, "convert", "m.joblib", "--trust", "posix.listdir")
    assert refused.returncode == 2
    assert "Permission denied" in refused.stderr
    allowed = onnxtool(tmp_path, "convert", "m.joblib", "--trust", "posix.listdir", "--no-sandbox")
    assert allowed.returncode == 2
    assert "builtins.list" in allowed.stderr


def test_names_do_not_become_paths(tmp_path):
    (tmp_path / "work").mkdir()
    model = relu(name="../../escaped")
    for value in (*model.graph.input, *model.graph.output):
        value.name = {"x": "../../../in", "y": "/tmp/out"}[value.name]  # noqa: S108
    model.graph.node[0].input[0], model.graph.node[0].output[0] = "../../../in", "/tmp/out"  # noqa: S108
    model.metadata_props.add(key="../../meta", value="../../value")
    (tmp_path / "work" / "m.onnx").write_bytes(model.SerializeToString())
    done = onnxtool(tmp_path / "work", *VERBS["bundle"])
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["work"]
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["bundle", "m.onnx"]
    listed = json.loads((tmp_path / "work" / "bundle" / "manifest.json").read_text())["files"]
    assert not any(Path(name).is_absolute() or ".." in Path(name).parts for name in listed)


def test_names_do_not_drive_the_terminal(tmp_path):
    model = relu(name="\x1b[2J\x1b]0;owned\x07")
    model.producer_name = "\x1b]0;owned\x07\x9b31m"
    model.metadata_props.add(key="\x1b[31mkey", value="\x1b[2Jvalue\r\nmore")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    for verb in ("inspect", "lint", "verify"):
        done = onnxtool(tmp_path, *VERBS[verb], *(["--explain"] if verb == "verify" else []))
        assert done.returncode == 0, done.stderr
        assert not set(done.stdout + done.stderr) & {"\x1b", "\x07", "\x9b", "\r"}


# -- Files that end, hang or bury the library that reads them --------------------------------------------------


def hash_bomb(folder):
    """Keys of one hash: a dictionary of n of them takes n squared comparisons to build."""
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    model.extra = dict.fromkeys(place * (2**61 - 1) for place in range(1, 60_000))
    joblib.dump(model, folder / "m.joblib")
    return folder / "m.joblib", "took more than 5 s to open it"


def arrow_without_buffers(folder):
    class Array:
        def __reduce__(self):
            import pyarrow

            return pyarrow.lib._restore_array, ((pyarrow.int64(), 1_000_000, 0, 0, [None, None], [], None),)

    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    model.extra = Array()
    joblib.dump(model, folder / "m.joblib")
    return folder / "m.joblib", "values buffer"


def false_node(folder):
    model = RandomForestClassifier(1).fit([[0.0], [1.0]] * 5, [0, 1] * 5)
    tree = model.estimators_[0].tree_
    state = tree.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"]["left_child"][0] = 10**8
    tree.__setstate__(state)
    joblib.dump(model, folder / "m.joblib")
    return folder / "m.joblib", "ended by SIGSEGV"


def false_split_of_xgboost(folder):
    model = xgboost.XGBClassifier(n_estimators=2).fit([[0.0], [1.0]] * 5, [0, 1] * 5)
    model.save_model(folder / "m.json")
    content = json.loads((folder / "m.json").read_text())
    tree = content["learner"]["gradient_booster"]["model"]["trees"][0]
    tree["left_children"][0] = tree["split_indices"][0] = 10**8
    (folder / "m.json").write_text(json.dumps(content))
    return folder / "m.json", "m.json"


def deep_json_of_xgboost(folder):
    (folder / "m.json").write_text('{"learner":' + "[" * 100_000 + "]" * 100_000 + "}")
    return folder / "m.json", "ended by SIGSEGV"


def false_child_of_lightgbm(folder):
    model = lightgbm.LGBMClassifier(n_estimators=2, min_child_samples=2, verbose=-1)
    model.fit([[0.0], [1.0]] * 5, [0, 1] * 5).booster_.save_model(folder / "m.txt")
    text = re.sub(r"left_child=\S+", "left_child=99999999", (folder / "m.txt").read_text(), count=1)
    (folder / "m.txt").write_text(text)
    return folder / "m.txt", "ended by SIG"


def deep_keras(folder):
    with zipfile.ZipFile(folder / "m.keras", "w") as made:
        made.writestr(
            "metadata.json", json.dumps({"keras_version": "3.12.0", "date_saved": "2026-01-01@00:00:00"})
        )
        made.writestr("config.json", "[" * 100_000 + "]" * 100_000)
        made.writestr("model.weights.h5", b"")
    return folder / "m.keras", "nested more deeply"


BURYING = [
    hash_bomb,
    arrow_without_buffers,
    false_node,
    false_split_of_xgboost,
    deep_json_of_xgboost,
    false_child_of_lightgbm,
    deep_keras,
]


@pytest.mark.parametrize("make", BURYING)
def test_a_file_that_ends_or_hangs_its_library_is_one_line(make, tmp_path):
    path, message = make(tmp_path)
    seconds = 5 if make is hash_bomb else 30
    with pytest.raises(SourceError, match=message) as raised:
        convert(path, tmp_path / "m.onnx", sandbox=Limits(timeout=seconds))
    assert "\n" not in str(raised.value)
    assert "Traceback" not in str(raised.value)
    done = onnxtool(tmp_path, "convert", path.name, "--sandbox-timeout", seconds)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
