"""Sources in a sandbox say what they say outside of one, and what a hostile one does ends in an error of ours."""

import io
import json
import os
import signal
import struct
import threading

import joblib
import numpy as np
import onnx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import onnxtool
from onnxtool import Limits
from onnxtool.bench.runner import SourceTask, run_bench
from onnxtool.errors import SourceError, UntrustedError
from onnxtool.models.rows.channel import read_message, send
from onnxtool.models.rows.domain import Domain
from onnxtool.models.source import LoadOptions
from onnxtool.opening import open_source
from onnxtool.opening.confined import SandboxedSource
from onnxtool.opening.messages import PlainDomain

LIMITS = Limits(memory=4 << 30)


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    path = tmp_path_factory.mktemp("iris") / "iris.joblib"
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    joblib.dump(make_pipeline(StandardScaler(), RandomForestClassifier(10, n_jobs=2)).fit(x, names), path)
    return path


@pytest.fixture(scope="module")
def confined(iris):
    return open_source(iris, LoadOptions(limits=LIMITS))


def test_it_says_what_it_says_outside(iris, confined):
    plain = open_source(iris, LoadOptions())
    assert isinstance(confined, SandboxedSource)
    for attribute in ("framework", "framework_version", "kind", "inputs", "roles", "classes", "path"):
        assert getattr(confined, attribute) == getattr(plain, attribute)
    rows = {"X": np.random.default_rng(0).normal(4, 2, (50, 4)).astype(np.float32)}
    for truth, found in ((plain.predict(rows), confined.predict(rows)), (plain.in_double(rows), None)):
        found = found or confined.in_double(rows)  # noqa: PLW2901
        assert list(found) == list(truth)
        for name, value in truth.items():
            np.testing.assert_array_equal(found[name], value)
    inside, outside = list(confined.steps(rows)), list(plain.steps(rows))
    assert [(step.name, step.kind) for step in inside] == [(step.name, step.kind) for step in outside]
    for one, other in zip(inside, outside, strict=True):
        np.testing.assert_array_equal(one.value, other.value)
    drawn = [
        {
            name: domain.sample("float32", (20, 4), np.random.default_rng(1))
            for name, domain in found.domains().items()
        }
        for found in (confined, plain)
    ]
    np.testing.assert_array_equal(drawn[0]["X"], drawn[1]["X"])


def test_text_and_missing_values_go_in_and_out(tmp_path):
    rows = np.array([["Oslo"], ["Rome"], [None], ["Bern"]], dtype=object)
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), [0])).fit(rows)
    joblib.dump(encoder, tmp_path / "m.joblib")
    confined = open_source(tmp_path / "m.joblib", LoadOptions(limits=LIMITS, data={"X": rows}))
    plain = open_source(tmp_path / "m.joblib", LoadOptions(data={"X": rows}))
    for name, value in plain.predict({"X": rows}).items():
        np.testing.assert_array_equal(confined.predict({"X": rows})[name], value)


def test_convert_verify_and_bundle_are_the_same(iris, tmp_path):
    for folder, sandbox in (("in", LIMITS), ("out", None)):
        (tmp_path / folder).mkdir()
        assert onnxtool.convert(iris, tmp_path / folder / "m.onnx", target="mlnet", sandbox=sandbox)
        assert onnxtool.verify(tmp_path / folder / "m.onnx", iris, sandbox=sandbox)
    inside, outside = (onnx.load(tmp_path / folder / "m.onnx").graph for folder in ("in", "out"))
    assert inside == outside


def test_a_source_is_measured_in_it(iris, tmp_path):
    onnxtool.convert(iris, tmp_path / "m.onnx")
    result = run_bench(
        tmp_path / "m.onnx",
        inputs={"X": np.ones((1, 4))},
        providers=["cpu"],
        batches=[1],
        threads=[None],
        duration_s=0.05,
        data="ones",
        seed=None,
        source=SourceTask(str(iris), LoadOptions(limits=LIMITS)),
    )
    assert [(cell.status, cell.reason) for cell in result.cells] == [("measured", None)] * 2


def test_its_process_and_folder_go_with_it(iris):
    before = {child.pid for child in psutil.Process().children()}
    source = open_source(iris, LoadOptions(limits=LIMITS))
    folder = source._process.folder
    (process,) = [child for child in psutil.Process().children() if child.pid not in before]
    assert folder.is_dir()
    del source
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert not folder.exists()


def test_our_errors_come_back_as_they_are(tmp_path):
    class Own:
        def __reduce__(self):
            return os.system, ("touch owned",)

    joblib.dump(Own(), tmp_path / "m.joblib")
    with pytest.raises(UntrustedError, match="system"):
        open_source(tmp_path / "m.joblib", LoadOptions(limits=LIMITS))


def test_too_slow(iris):
    with pytest.raises(SourceError, match=r"more than 0\.01 s to open it.*--sandbox-timeout"):
        open_source(iris, LoadOptions(limits=Limits(timeout=0.01)))


def test_too_large(tmp_path):
    forest = RandomForestClassifier(1).fit([[0.0], [1.0]], [0, 1])
    forest.ballast = np.zeros(80_000_000)  # 640 MB, of which zlib makes nothing
    joblib.dump(forest, tmp_path / "bomb.joblib", compress=1)
    assert (tmp_path / "bomb.joblib").stat().st_size < 10_000_000
    with pytest.raises(SourceError, match=r"512 MiB of memory.*--sandbox-memory"):
        open_source(tmp_path / "bomb.joblib", LoadOptions(limits=Limits(memory=512 << 20)))


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_is_an_error_that_says_how(iris, number):
    source = open_source(iris, LoadOptions(limits=LIMITS))
    os.kill(source._process.process.pid, number)
    with pytest.raises(SourceError, match=f"ended by {number.name}.*damaged"):
        source.predict({"X": np.ones((1, 4), np.float32)})


def test_threads_may_share_it(confined):
    rows = [np.full((1, 4), value, np.float32) for value in range(8)]
    truth = [confined.predict({"X": row}) for row in rows]
    found = [None] * len(rows)

    def request(place):
        found[place] = confined.predict({"X": rows[place]})

    threads = [threading.Thread(target=request, args=(place,)) for place in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, truth, strict=True):
        for name, value in other.items():
            np.testing.assert_array_equal(one[name], value)


numbers = st.floats(allow_nan=False, width=32)


@given(
    st.builds(
        Domain,
        choices=st.lists(st.text() | st.integers(-9, 9) | numbers | st.booleans()).map(tuple),
        center=numbers | st.lists(numbers).map(np.array),
        landmarks=st.lists(st.lists(numbers, min_size=1).map(np.array), max_size=3).map(tuple),
        low=st.integers(0, 9),
        missing=st.floats(0, 1),
        columns=st.lists(st.builds(Domain, words=st.integers(0, 9)), max_size=2).map(tuple),
    )
)
def test_domains_arrive_as_they_were(domain):
    again = PlainDomain.model_validate(json.loads(json.dumps(PlainDomain.of(domain).model_dump()))).domain()
    assert again.choices == domain.choices
    assert [type(choice) for choice in again.choices] == [type(choice) for choice in domain.choices]
    np.testing.assert_array_equal(again.center, domain.center)
    assert len(again.landmarks) == len(domain.landmarks)
    for one, other in zip(again.landmarks, domain.landmarks, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (again.low, again.missing, again.columns) == (domain.low, domain.missing, domain.columns)


@given(st.binary(max_size=300))
def test_an_answer_that_makes_no_sense_is_no_more_than_that(content):
    with pytest.raises((ValueError, EOFError)):
        read_message(io.BytesIO(content), 100)
    with pytest.raises((ValueError, EOFError)):
        read_message(io.BytesIO(struct.pack(">Q", len(content)) + content), 1000)


def test_an_answer_longer_than_its_memory_is_not_read():
    message = io.BytesIO()
    send(message, None, {"x": np.zeros(1000)})
    with pytest.raises(ValueError, match="too long"):
        read_message(io.BytesIO(struct.pack(">Q", message.tell()) + message.getvalue()), 1000)


@pytest.mark.parametrize(
    "header",
    [
        b'[null, [["x", "string", [1]]]]',
        b'[null, [["x", "nonsense", [9]]]]',
        b'[null, [["x", "float64", [99999999999999]]]]',
    ],
)
def test_arrays_that_are_not_what_they_say(header):
    array = io.BytesIO()
    np.lib.format.write_array(array, np.frombuffer(b"[[[[", dtype="V1"), allow_pickle=False)
    content = header + b"\n" + array.getvalue()
    with pytest.raises(ValueError):
        read_message(io.BytesIO(struct.pack(">Q", len(content)) + content), 1000)


# -- Answers of a source that has taken its process over ------------------------------------------------------


HOSTILE = """
import os, sys

class Own:
    def __init__(self, how, target): self.how, self.target = how, target
    def __setstate__(self, state):
        self.__dict__.update(state)
        worker = sys.modules["__main__"]
        written = worker.write
        def write(model, path):
            written(model, path)
            os.unlink(path)
            if self.how == "link": os.symlink(self.target, path)
            if self.how == "device": os.symlink("/dev/zero", path)
            if self.how == "pipe": os.mkfifo(path)
            if self.how == "sparse":
                import resource
                with open(path, "wb") as file: file.truncate(resource.getrlimit(resource.RLIMIT_FSIZE)[0])
                with open(str(path) + ".data", "wb") as file: file.truncate(1 << 20)
            if self.how == "folder":
                os.rmdir(os.path.dirname(path))
                os.symlink(os.path.dirname(self.target), os.path.dirname(path))
        worker.write = write
"""


@pytest.mark.parametrize("how", ["link", "device", "pipe", "sparse", "folder", "nothing"])
def test_an_answer_that_is_no_plain_file_is_not_followed(how, tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "onnxtool_hostile.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    import onnxtool_hostile

    model = RandomForestClassifier(1, max_depth=1).fit([[0.0], [1.0]], [0, 1])
    (tmp_path / "own").mkdir()
    onnxtool.convert(model, tmp_path / "own" / "model.onnx")  # which the process may not read
    model.extra = onnxtool_hostile.Own(how, str(tmp_path / "own" / "model.onnx"))
    joblib.dump(model, tmp_path / "m.joblib")
    with pytest.raises(SourceError, match=r"makes no sense|converts to more than"):
        onnxtool.convert(
            tmp_path / "m.joblib",
            tmp_path / "m.onnx",
            trust=["onnxtool_hostile.Own"],
            sandbox=Limits(memory=2 << 30),
        )
    assert not (tmp_path / "m.onnx").exists()


FILLING = """
import mmap, os, tempfile, time

class Own:
    def __init__(self, how): self.how = how
    def __setstate__(self, state):
        for place in range(4):
            name = f"{tempfile.gettempdir()}/{place}"
            file = tempfile.TemporaryFile() if state["how"] == "deleted" else open(name, "w+b")
            file.write(bytes(200 << 20))
            file.flush()
            if state["how"] == "mapped":
                state[place] = mmap.mmap(file.fileno(), 0)
                os.unlink(file.name)
                file.close()
            else:
                state[place] = file
        time.sleep(60)
"""


@pytest.mark.parametrize("how", ["named", "deleted", "mapped"])
def test_files_of_a_source_have_a_limit_in_all(how, tmp_path, monkeypatch):
    (tmp_path / "onnxtool_filling.py").write_text(FILLING)
    monkeypatch.syspath_prepend(tmp_path)
    import onnxtool_filling

    joblib.dump(onnxtool_filling.Own(how), tmp_path / "m.joblib")
    options = LoadOptions(limits=Limits(memory=512 << 20, timeout=40), trust=("onnxtool_filling.Own",))
    with pytest.raises(SourceError, match=r"wrote more than 512 MiB to open it.*--sandbox-memory"):
        open_source(tmp_path / "m.joblib", options)
