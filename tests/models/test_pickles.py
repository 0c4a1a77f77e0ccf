"""The pickle gate: every estimator gets in, nothing that runs code does."""

from __future__ import annotations

import bz2
import contextlib
import copyreg
import gzip
import io
import lzma
import os
import pickle
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.utils import get_tags
from sklearn.utils._test_common.instance_generator import _tested_estimators

from onnxtool.errors import OnnxtoolError, SourceError, UntrustedError
from onnxtool.models.safety.pickles import is_pickle, is_skops, load, load_skops, saved_by

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ROWS = np.random.default_rng(0).random((60, 6))


# -- What gets in ---------------------------------------------------------------------------------------------


def fit(estimator: Any) -> Any:
    """Fit any estimator of scikit-learn on rows of the kind that its tags require."""
    tags = get_tags(estimator)
    rows: Any = ROWS
    target: Any = (ROWS[:, 0] > 0.5).astype(int)
    if tags.input_tags.string and not tags.input_tags.two_d_array:
        rows = [f"the cat {i % 5}" for i in range(60)]
    elif tags.input_tags.dict and not tags.input_tags.two_d_array:
        rows = [{"a": i % 3, "b": "x"} for i in range(60)]
    elif tags.input_tags.pairwise:
        rows = ROWS @ ROWS.T
    elif tags.input_tags.one_d_array and not tags.input_tags.two_d_array:
        rows = ROWS[:, 0]
    if tags.estimator_type == "regressor":
        target = ROWS[:, 0] * 3
    if tags.target_tags.multi_output and not tags.target_tags.single_output:
        target = np.c_[target, target[::-1]]
    if type(estimator).__name__ in ("LabelEncoder", "LabelBinarizer"):
        return estimator.fit(target)
    if type(estimator).__name__ == "MultiLabelBinarizer":
        return estimator.fit([(1, 2), (3,)])
    if type(estimator).__name__ == "SparseCoder":
        return estimator.fit(ROWS[:, :3])
    return estimator.fit(rows, target)


@pytest.fixture(scope="module")
def fitted() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # toy data: of convergence and the like
        return [fit(estimator) for estimator in _tested_estimators()]


WAYS: dict[str, Callable[[Any, Path], Any]] = {
    **{
        f"protocol {protocol}": lambda model, path, protocol=protocol: path.write_bytes(
            pickle.dumps(model, protocol)
        )
        for protocol in PROTOCOLS
    },
    "joblib": joblib.dump,
    **{
        f"joblib {method}": lambda model, path, method=method: joblib.dump(model, path, compress=(method, 1))
        for method in ("zlib", "gzip", "bz2", "lzma", "xz")
    },
}


@pytest.mark.filterwarnings("ignore:Class PassiveAggressive:FutureWarning")
@pytest.mark.parametrize("way", ["protocol 0", "protocol 2", "protocol 5", "joblib", "joblib zlib"])
def test_every_estimator_of_scikit_learn_loads(fitted: list[Any], way: str, tmp_path: Path) -> None:
    assert len(fitted) > 200
    path = tmp_path / "model"
    for estimator in fitted:
        WAYS[way](estimator, path)
        assert is_pickle(path)
        assert type(load(path)) is type(estimator)


@pytest.mark.parametrize("way", WAYS)
def test_loaded_pipeline_predicts_the_same(way: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"size": ROWS[:, 0], "age": ROWS[:, 1], "kind": np.where(ROWS[:, 2] > 0.5, "a", "b")})
    model = make_pipeline(
        # Columns as an Index, which is what frame.select_dtypes(...).columns gives.
        make_column_transformer(
            (StandardScaler(), frame.select_dtypes("number").columns),
            (OneHotEncoder(handle_unknown="ignore"), frame.columns[2:]),
        ),
        SelectKBest(f_classif, k=3),
        RandomForestClassifier(5, random_state=0),
    ).fit(frame, ROWS[:, 3] > 0.5)
    path = tmp_path / "model"
    WAYS[way](model, path)
    loaded: Any = load(path)
    np.testing.assert_array_equal(loaded.predict_proba(frame), model.predict_proba(frame))


def test_histogram_gradient_boosting_with_categories_loads(tmp_path: Path) -> None:
    """It keeps a functools.partial of a function that only checks."""
    rows = np.c_[np.arange(60) % 4, ROWS]
    model = HistGradientBoostingClassifier(max_iter=3, categorical_features=[0]).fit(rows, ROWS[:, 0] > 0.5)
    joblib.dump(model, tmp_path / "model")
    loaded: Any = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(rows), model.predict_proba(rows))


def test_arrays_of_all_kinds_survive(tmp_path: Path) -> None:
    structured = np.zeros(3, dtype=np.dtype([("a", "<f8"), ("b", "<i4")], align=True))
    arrays = {
        "fortran": np.asfortranarray(ROWS),
        "big_endian": ROWS.astype(">f8"),
        "objects": np.array([["a", None], [1.5, "b"]], dtype=object),
        "empty": np.empty((0, 3)),
        "scalar": np.array(2.5),
        "text": np.array(["abc", "d"]),
        "dates": np.array(["2020-01-01"], dtype="datetime64[D]"),
        "structured": structured,
        "masked": np.ma.masked_array([1.0, 2.0], [True, False]),
        "bool": ROWS > 0.5,
    }
    for way, write in WAYS.items():
        write(arrays, tmp_path / "arrays")
        loaded: Any = load(tmp_path / "arrays")
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded[name], array, err_msg=f"{way}: {name}")
            assert loaded[name].flags.writeable
            assert loaded[name].dtype == array.dtype or name == "big_endian"


def test_boosted_models_load(tmp_path: Path) -> None:
    import catboost
    import lightgbm
    import xgboost

    target = ROWS[:, 0] > 0.5
    models = [
        xgboost.XGBClassifier(n_estimators=3),
        lightgbm.LGBMClassifier(n_estimators=3, verbose=-1),
        catboost.CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False),
    ]
    for model in models:
        model.fit(ROWS, target)
        joblib.dump(model, tmp_path / "model")
        loaded: Any = load(tmp_path / "model")
        np.testing.assert_array_equal(loaded.predict_proba(ROWS), model.predict_proba(ROWS))


def test_model_of_another_version_loads_and_names_it(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, ROWS[:, 0] > 0.5)
    text = pickle.dumps(model, 4)
    version = __import__("sklearn").__version__.encode()
    assert text.count(version)
    (tmp_path / "old.pkl").write_bytes(text.replace(version, b"1.2.3"[: len(version)].ljust(len(version), b"0")))
    load(tmp_path / "old.pkl")
    assert [saved.version for saved in saved_by(tmp_path / "old.pkl")] == ["1.2.3"]


# -- What does not --------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that every payload tries to make."""
    path = tmp_path / "it-ran"
    yield path
    assert not path.exists(), "a payload ran"


def touch(marker: Path) -> Call:
    return Call(os.system, f"touch {marker}")


def payloads(marker: Path) -> dict[str, Any]:
    python = f"open({str(marker)!r}, 'w')"
    return {
        "os.system": touch(marker),
        "subprocess": Call(subprocess.Popen, ["touch", str(marker)]),
        "eval": Call(eval, python),
        "exec": Call(exec, python),
        "open": Call(open, str(marker), "w"),
        "getattr chain": Call(getattr, Call(__import__, "os"), "system"),
        "pickle in pickle": Call(pickle.loads, pickle.dumps(touch(marker))),
        "numpy runstring": Call(np.testing.runstring, python, {}),
        "numpy.save": Call(np.save, str(marker), np.zeros(2)),
        "joblib.dump": Call(joblib.dump, 1, str(marker)),
        "partial": Call(__import__("functools").partial, os.system, f"touch {marker}"),
        "methodcaller": Call(__import__("operator").methodcaller, "system", f"touch {marker}"),
        "a step's function": FunctionTransformer(os.system),
        "in a list, late": [LogisticRegression(), np.zeros(3), touch(marker)],
        "in a parameter": LogisticRegression(C=touch(marker)),
        "as a key": {touch(marker): 1},
        "marshal": Call(__import__("marshal").loads, b"N"),
        "a frozen distribution": __import__("scipy.stats").stats.norm(0, 1),
    }


PAYLOADS = list(payloads(Path("it-ran")))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", PAYLOADS)
def test_payload_is_refused(name: str, protocol: int, marker: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(payloads(marker)[name], protocol))
    with pytest.raises(UntrustedError, match=r"--trust \w+"):
        load(path)


@pytest.mark.parametrize("way", [way for way in WAYS if way.startswith("joblib")])
def test_payload_inside_an_array_of_objects_is_refused(way: str, marker: Path, tmp_path: Path) -> None:
    model = OneHotEncoder().fit([["a"], ["b"]])
    model.categories_ = [np.array(["a", touch(marker)], dtype=object)]
    WAYS[way](model, tmp_path / "evil")
    with pytest.raises(UntrustedError, match=r"posix\.system"):
        load(tmp_path / "evil")


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress, bz2.compress, lzma.compress])
def test_compressed_payload_is_refused(pack: Callable[[bytes], bytes], marker: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.joblib"
    path.write_bytes(pack(pickle.dumps(touch(marker))))
    with pytest.raises(UntrustedError, match=r"posix\.system"):
        load(path)


def hand_written(marker: Path) -> dict[str, bytes]:
    command = f"touch {marker}".encode()
    text = b"X" + len(command).to_bytes(4, "little") + command
    short = {
        word: b"\x8c" + bytes([len(word)]) + word for word in (b"os", b"system", b"sklearn.base", b"os.system")
    }
    return {
        "GLOBAL": b"cos\nsystem\n(S'" + command + b"'\ntR.",
        "INST": b"(S'" + command + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + command + b"'\no.",
        "STACK_GLOBAL": b"\x80\x04" + short[b"os"] + short[b"system"] + b"\x93" + text + b"\x85R.",
        "STACK_GLOBAL of strings from the memo": (
            b"\x80\x04" + short[b"system"] + b"\x940" + short[b"os"] + b"h\x00\x93" + text + b"\x85R."
        ),
        "dotted name through a known module": (
            b"\x80\x04" + short[b"sklearn.base"] + short[b"os.system"] + b"\x93" + text + b"\x85R."
        ),
        "a module's import in a known module": b"\x80\x02csklearn.datasets._base\nos\n.",
        "a known module's helper": b"\x80\x02csklearn.utils.fixes\nparse_version\n.",
        "cut off after the name": b"\x80\x02cos\nsystem\n(X\xff\x00",
        "overwritten memo": (
            b"\x80\x02csklearn.linear_model\nLogisticRegression\nq\x00cos\nsystem\nq\x00" + text + b"\x85R."
        ),
        "after a harmless call": (
            b"\x80\x02cbuiltins\nset\n]\x85R0cos\nsystem\n" + text + b"\x85R."
        ),
        "Python 2's name": b"\x80\x02c__builtin__\neval\n" + text + b"\x85R.",
    }  # fmt: skip


@pytest.mark.parametrize("name", list(hand_written(Path("it-ran"))))
def test_hand_written_pickle_is_refused(name: str, marker: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(hand_written(marker)[name])
    expected = SourceError if name in ("INST", "OBJ") else UntrustedError
    with pytest.raises(expected):
        load(path)


def test_operations_that_reach_outside_are_refused(marker: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    copyreg.add_extension("os", "system", 240)
    try:
        path.write_bytes(b"\x80\x02\x82\xf0X\x04\x00\x00\x00true\x85R.")
        with pytest.raises(SourceError):
            load(path)
    finally:
        copyreg.remove_extension("os", "system", 240)
    path.write_bytes(b"\x80\x02X\x01\x00\x00\x00aQ.")
    with pytest.raises(SourceError):
        load(path)


@pytest.mark.parametrize(
    "program",
    [
        # A parameter's function may be kept, not called.
        b"csklearn.feature_selection._univariate_selection\nf_classif\n)R.",
        b"csklearn.linear_model._logistic\nLogisticRegression\n)R.",  # __init__ is not needed
        b"ccopyreg\n_reconstructor\ncsklearn.base\nBaseEstimator\ncsklearn.base\nBaseEstimator\nN\x87R.",
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00bz2\x86R.",
        b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",  # two gigabytes of nothing
        b"cfunctools\npartial\ncnumpy\nexp\n\x85R(cbuiltins\nlist\n)}Ntbc_codecs\nencode\n(X\x01\x00\x00\x00aNtR.",
        b"cfunctools\npartial\ncbuiltins\nset\n\x85R.",
        b"ccollections\ndefaultdict\ncsklearn.linear_model._logistic\nLogisticRegression\n\x85R.",
    ],
)
def test_known_names_do_only_what_models_need(program: bytes, tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"\x80\x02" + program)
    with pytest.raises(UntrustedError):
        load(path)


def test_a_class_cannot_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    # BUILD with slots would set attributes of the class itself.
    path.write_bytes(
        b"\x80\x02csklearn.linear_model._logistic\nLogisticRegression\nN}X\x07\x00\x00\x00predictK\x01s\x86b."
    )
    with pytest.raises(UntrustedError, match="not made"):
        load(path)
    assert callable(LogisticRegression.predict)


def forged_dtype(state: tuple[Any, ...]) -> Any:
    class Dtype:
        def __reduce__(self) -> Any:
            return (np.dtype, ("O8", False, True), state)

    return Dtype()


def test_raw_bytes_cannot_pass_for_objects(tmp_path: Path) -> None:
    """A dtype of objects with its flags cleared makes NumPy take eight bytes for a pointer."""
    evil = Call(
        np._core.numeric._frombuffer, b"A" * 8, forged_dtype((3, "|", None, None, None, -1, -1, 0)), (1,), "C"
    )
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(evil))
    with pytest.raises(SourceError, match="dtype"):
        load(tmp_path / "evil.pkl")


def test_short_list_for_a_long_array_is_refused(tmp_path: Path) -> None:
    """NumPy does not compare them, and reads beyond the list."""

    class Array:
        def __reduce__(self) -> Any:
            state = (1, (10**6,), np.dtype(object), False, [1, 2])
            return (np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state)

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Array()))
    with pytest.raises(SourceError, match="shape"):
        load(tmp_path / "evil.pkl")


def test_trust_is_exact(marker: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.pkl"
    path.write_bytes(pickle.dumps(Call(__import__("fractions").Fraction, 1, 3)))
    for trust in ((), ("fractions.*",), ("fraction",), ("Fraction",), ("fractions.Fraction.numerator",)):
        with pytest.raises(UntrustedError, match=r"--trust fractions\.Fraction"):
            load(path, trust)
    assert str(load(path, ("fractions.Fraction",))) == "1/3"


def test_everything_refused_is_named_at_once(marker: Path, tmp_path: Path) -> None:
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps([touch(marker), Call(eval, "1")]))
    with pytest.raises(UntrustedError, match=r"--trust builtins\.eval --trust posix\.system"):
        load(tmp_path / "evil.pkl")


# -- Damage ---------------------------------------------------------------------------------------------------


def test_truncated_files_are_errors_of_ours(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), RandomForestClassifier(2, max_depth=2)).fit(ROWS, ROWS[:, 0] > 0.5)
    path = tmp_path / "cut.joblib"
    for way in ("protocol 5", "joblib", "joblib zlib", "joblib xz"):
        WAYS[way](model, path)
        whole = path.read_bytes()
        for length in range(2, int(len(whole) * 0.95), len(whole) // 23):
            path.write_bytes(whole[:length])
            with pytest.raises(SourceError, match=r"cut\.joblib"):
                load(path)


def test_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxtool.models.safety.pickles.EXPANDED_LIMIT", 2**20)
    path = tmp_path / "bomb.joblib"
    joblib.dump(np.zeros(2**20), path, compress=9)
    assert path.stat().st_size < 2**16
    with pytest.raises(SourceError, match="expands to, more than"):
        load(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", False),
        (b"\x80\x05N.", True),
        (b"\x80\x09N.", False),
        (b"a,b\n1,2\n", False),
        (b"tree\nversion=v4\n", False),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", False),  # torch.save before 1.6
        (b"PK\x03\x04rest", False),
        (gzip.compress(b"a,b\n", mtime=0), False),
        (gzip.compress(b"\x80\x05N.", mtime=0), True),
        (gzip.compress(b"\x80\x05N.", mtime=0)[:8], False),
        (b"ccopy_reg\n_reconstructor\n(", True),
    ],
)
def test_recognition_by_content(content: bytes, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert is_pickle(tmp_path / "file") is expected


EVENTS = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.remove",
    "os.rename",
    "shutil",
)
happened: list[str] = []


def watch(event: str, args: tuple[Any, ...]) -> None:
    if event.startswith(EVENTS) or (event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")):
        happened.append(event)


@pytest.fixture(scope="module")
def seeds() -> list[bytes]:
    """Models and payloads to mutate."""
    frame = np.array([["a", "b"], ["c", "d"]], dtype=object)
    joblibbed = io.BytesIO()
    joblib.dump(OneHotEncoder().fit(frame), joblibbed)
    return [
        pickle.dumps(make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, ROWS[:, 0] > 0.5), 4),
        pickle.dumps(RandomForestClassifier(1, max_depth=2, random_state=0).fit(ROWS, ROWS[:, 0] > 0.5), 5),
        joblibbed.getvalue(),
        *(pickle.dumps(payload, 4) for payload in payloads(Path("fuzz-it-ran")).values()),
        *hand_written(Path("fuzz-it-ran")).values(),
    ]


@pytest.fixture(scope="module")
def mutated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "mutated.pkl"


@settings(max_examples=400)
@given(data=st.data())
def test_mutated_pickles_never_run_anything(data: st.DataObject, seeds: list[bytes], mutated: Path) -> None:
    content = bytearray(data.draw(st.sampled_from(seeds)))
    other = data.draw(st.sampled_from(seeds))
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["byte", "cut", "splice", "drop"])):
            case "byte":
                content[at] = data.draw(st.integers(0, 255))
            case "cut":
                del content[max(at, 1) :]
            case "splice":
                start = data.draw(st.integers(0, len(other) - 1))
                content[at:at] = other[start : start + data.draw(st.integers(1, 64))]
            case "drop":
                del content[at : at + data.draw(st.integers(1, 16))]
        content = content or bytearray(b"\x80")
    mutated.write_bytes(content)
    if watch not in WATCHING:
        sys.addaudithook(watch)
        WATCHING.append(watch)
    happened.clear()
    with contextlib.suppress(OnnxtoolError):
        load(mutated)
    assert not happened
    assert not Path("fuzz-it-ran").exists()


WATCHING: list[Any] = []


# -- skops ----------------------------------------------------------------------------------------------------


def test_skops_loads_and_refuses(tmp_path: Path) -> None:
    import skops.io

    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(ROWS, ROWS[:, 0] > 0.5)
    path = tmp_path / "model.skops"
    skops.io.dump(model, path)
    assert is_skops(path)
    assert not is_pickle(path)
    loaded: Any = load_skops(path)
    np.testing.assert_array_equal(loaded.predict(ROWS), model.predict(ROWS))
    skops.io.dump(FunctionTransformer(os.system), path)
    with pytest.raises(UntrustedError, match=r"--trust posix\.system"):
        load_skops(path)
    # Fine in a pickle, where the arguments are looked at.
    skops.io.dump(FunctionTransformer(partial(np.log1p)), path)
    with pytest.raises(UntrustedError, match=r"functools\.partial"):
        load_skops(path)


def test_damaged_skops_is_an_error_of_ours(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "model.skops"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", "{}")
    with pytest.raises(SourceError, match=r"model\.skops"):
        load_skops(path)
