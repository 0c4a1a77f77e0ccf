"""The table of what a name may do in a pickle, walked whole: every admitted name by every operation."""

from __future__ import annotations

import importlib
import io
import json
import mmap
import pickle
import types
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import all_estimators

from onnxtool.errors import SourceError, UntrustedError
from onnxtool.models.safety import admission
from onnxtool.models.safety.admission import Admitted, admit
from onnxtool.models.safety.pickles import Rehearsal, Stream, load, load_skops

# -- All names that are admitted ------------------------------------------------------------------------------


def _candidates() -> Iterator[tuple[str, str]]:
    for full in (*admission.STAND_INS, *admission.CALLABLE, *admission.CONSTRUCTIBLE, *admission.VALUES):
        module, _, name = full.rpartition(".")
        yield module, name
    modules = [
        *admission.COMPUTING_MODULES,
        *admission.METRIC_MODULES,
        *admission.BOOSTING,
        "numpy",
        "scipy.special",
    ]
    modules += sorted({kind.__module__ for _, kind in all_estimators()})
    for module in modules:
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:  # of another version of its library
            continue
        yield from ((module, name) for name in dir(found))


@pytest.fixture(scope="module")
def everything() -> list[Admitted]:
    names: dict[str, Admitted] = {}
    for module, name in dict.fromkeys(_candidates()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of names that have moved
                found = admit(module, name)
        except SourceError:
            continue
        if found is not None:
            names[found.full_name] = found
    return list(names.values())


OPCODES = {
    # Each is a program around the name, whose place is %s.
    "kept": b"]%sa.",
    "REDUCE": b"%s)R.",
    "NEWOBJ": b"%s)\x81.",
    "NEWOBJ_EX": b"%s)}\x92.",
    "NEWOBJ_EX with keywords": b"%s)}\x8c\x01aNs\x92.",
    "OBJ": b"(%so.",
    "INST": b"(i%i.",
    "BUILD": b"%s}b.",
    "SETITEM": b"%sNNs.",
    "APPEND": b"%sNa.",
    "ADDITEMS": b"%s(N\x90.",
}


def program(template: bytes, full_name: str) -> bytes:
    module, _, name = full_name.rpartition(".")
    name_op = b"c" + f"{module}\n{name}\n".encode()
    return b"\x80\x04" + template.replace(b"%s", name_op).replace(b"%i", name_op[1:])


def passes(code: bytes) -> bool:
    """Whether the rehearsal, which makes nothing, lets a program through."""
    rehearsal = Rehearsal(Stream(io.BytesIO(code), 1 << 20), ())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that have moved
            rehearsal.load()
    except Exception:  # as for `load`, which makes a SourceError of it
        return False
    return not rehearsal.refused and not rehearsal.violation


WITHOUT_ARGUMENTS = {
    "builtins.bytearray", "builtins.bytes", "builtins.complex", "builtins.frozenset", "builtins.set",
    "builtins.slice", "collections.defaultdict", "numpy.dtype", "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer", "pandas.StringDtype", "pandas.core.arrays.string_.StringDtype",
    "pyarrow.lib._restore_array", "pyarrow.lib.py_buffer", "pyarrow.lib.type_for_alias", "collections.OrderedDict",
    "pandas._libs.internals._unpickle_block", "pandas.core.internals.managers.BlockManager",
    *admission.BIT_GENERATORS, "numpy.random.bit_generator.SeedSequence",
}  # fmt: skip
"""What may be called without arguments, outside scikit-learn's compiled modules. (Some then fail, as they should.)"""


def expected(found: Admitted, opcode: str) -> bool:
    """The promises of the levels, written a second time."""
    compiled = found.full_name.rpartition(".")[0] in admission.COMPUTING_MODULES
    if opcode == "kept":
        return True
    if opcode == "REDUCE":
        return found.full_name in WITHOUT_ARGUMENTS - {"numpy.dtype"} or compiled
    if opcode in ("NEWOBJ", "NEWOBJ_EX"):
        made = found.level == "constructible" or found.full_name == "collections.OrderedDict"
        return made or (compiled and isinstance(found.value, type))
    return False


def test_the_table_holds_for_every_name_and_every_operation(everything: list[Admitted]) -> None:
    assert len(everything) > 800
    wrong = [
        (found.full_name, opcode)
        for found in everything
        for opcode, template in OPCODES.items()
        if passes(program(template, found.full_name)) != expected(found, opcode)
    ]
    assert wrong == []


AS_ARGUMENTS = {
    ("collections.defaultdict", kind)
    for kind in ("builtins.dict", "builtins.list", "builtins.int", "builtins.float", "collections.OrderedDict")
}


def test_a_global_is_an_argument_only_where_the_call_takes_it(everything: list[Admitted]) -> None:
    """As the only argument, and inside of a list: of a partial, and of a class of the same compiled module."""
    callables = [found for found in everything if "REDUCE" in admission.OPERATIONS[found.level]]
    wrong = []
    for called in callables:
        for argument in everything:
            is_in = called.allows("REDUCE", ([argument],))
            is_first = called.allows("REDUCE", (argument,))
            module = called.full_name.rpartition(".")[0]
            compiled = module in admission.COMPUTING_MODULES and argument.full_name.startswith(module + ".")
            right = (
                (called.full_name, argument.full_name) in AS_ARGUMENTS
                or (called.full_name == "functools.partial" and admission.is_function(argument))
                or (compiled and isinstance(argument.value, type))
                or (called.full_name.endswith("_Index") and argument.full_name.endswith((".Index", ".RangeIndex")))
                or ("numpy.random._pickle" in called.full_name and argument.full_name in admission.BIT_GENERATORS)
                or (
                    called.full_name.endswith("unpickle_SeedSequence")
                    and argument.full_name.endswith(".SeedSequence")
                )
            )
            if is_in or is_first != right:
                wrong.append((called.full_name, argument.full_name, is_in, is_first))
    assert wrong == []


def test_nothing_that_opens_maps_or_imports_can_be_reached(everything: list[Admitted]) -> None:
    reaching = (io.IOBase, mmap.mmap, np.memmap, types.ModuleType, joblib.Memory, np.lib.npyio.NpzFile)
    assert [found.full_name for found in everything if isinstance(found.value, reaching)] == []
    kinds = [found for found in everything if isinstance(found.value, type)]
    assert [found.full_name for found in kinds if issubclass(found.value, reaching)] == []


# -- What was a way in ----------------------------------------------------------------------------------------


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "marker"
    yield path
    assert not path.exists()


def text(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode()


def name(full_name: str) -> bytes:
    module, _, last = full_name.rpartition(".")
    return text(module) + text(last) + b"\x93"


def test_an_index_of_another_class_is_refused(marker: Path, tmp_path: Path) -> None:
    options = b"}(" + text("filename") + text(str(marker)) + text("mode") + text("w+") + text("shape") + b"K\x05u"
    path = tmp_path / "m.pkl"
    path.write_bytes(
        b"\x80\x04" + name("pandas.core.indexes.base._new_Index") + name("numpy.memmap") + options + b"\x86R."
    )
    with pytest.raises(UntrustedError, match="_new_Index"):
        load(path)


@pytest.mark.parametrize("called", ["__generator_ctor", "__randomstate_ctor", "__bit_generator_ctor"])
@pytest.mark.parametrize("kind", ["numpy.memmap", "sklearn.linear_model._logistic.LogisticRegression"])
def test_a_generator_of_another_class_is_refused(called: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    for args in (name(kind) + b"\x85", text("MT19937") + name(kind) + b"\x86"):
        path.write_bytes(b"\x80\x04" + name(f"numpy.random._pickle.{called}") + args + b"R.")
        with pytest.raises(UntrustedError, match=called):
            load(path)


def test_a_partial_of_a_class_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    partial = name("functools.partial")
    path.write_bytes(b"\x80\x04" + partial + name("numpy.memmap") + b"\x85R.")
    with pytest.raises(UntrustedError, match="partial"):
        load(path)
    state = b"(" + name("numpy.memmap") + b")}Nt"
    path.write_bytes(b"\x80\x04" + partial + name("numpy.exp") + b"\x85R" + state + b"b.")
    with pytest.raises(UntrustedError, match="partial"):
        load(path)


@pytest.mark.parametrize("hidden", ["predict", "__class__", "get_params", "__dict__"])
@pytest.mark.parametrize("late", [False, True])
def test_an_attribute_that_hides_a_method_is_refused(hidden: str, late: bool, tmp_path: Path) -> None:
    """In the state, or put into it when it has been given already."""
    put = text(hidden) + name("numpy.exp") + b"s"
    start = b"\x80\x04" + name("sklearn.linear_model._logistic.LogisticRegression") + b")\x81"
    code = start + b"}\x940h\x00" + (b"b0h\x00" + put if late else put + b"b") + b"."
    (tmp_path / "m.pkl").write_bytes(code.replace(b"}\x940h\x00", b"}\x94"))
    with pytest.raises(UntrustedError, match="method of its class"):
        load(tmp_path / "m.pkl")


def test_a_slot_that_is_none_is_refused(tmp_path: Path) -> None:
    state = b"N}" + text("__class__") + name("sklearn.base.BaseEstimator") + b"s\x86"
    start = b"\x80\x04" + name("sklearn.linear_model._logistic.LogisticRegression") + b")\x81"
    (tmp_path / "m.pkl").write_bytes(start + state + b"b.")
    with pytest.raises(UntrustedError, match="no attribute of it"):
        load(tmp_path / "m.pkl")


def test_arrays_of_a_mapped_file_load_as_plain_arrays(tmp_path: Path) -> None:
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    model.coef_ = np.memmap(tmp_path / "coef", dtype=float, mode="w+", shape=(1, 1))
    joblib.dump(model, tmp_path / "m.joblib")
    assert type(load(tmp_path / "m.joblib").coef_) is np.ndarray  # type: ignore[attr-defined]


def test_indexes_and_generators_of_old_and_new_pickles_load(tmp_path: Path) -> None:
    held = {
        "index": pd.Index(["a", "b"]),
        "range": pd.RangeIndex(3),
        "generator": np.random.default_rng(0),
        "state": np.random.RandomState(0),
        "seeds": np.random.SeedSequence(1),
        "masked": np.ma.masked_array([1.0, 2.0], [True, False]),
    }
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(held))
    loaded: Any = load(tmp_path / "m.pkl")
    assert loaded["generator"].integers(100) == held["generator"].integers(100)
    assert list(loaded["index"]) == ["a", "b"]
    old = name("numpy.random._pickle.__generator_ctor") + text("PCG64")
    old += name("numpy.random._pickle.__bit_generator_ctor") + b"\x86R."
    (tmp_path / "old.pkl").write_bytes(b"\x80\x04" + old)
    assert isinstance(load(tmp_path / "old.pkl"), np.random.Generator)


# -- skops ----------------------------------------------------------------------------------------------------


def node(module: str, kind: str, loader: str, **content: Any) -> dict[str, Any]:
    return {"__module__": module, "__class__": kind, "__loader__": loader, **content}


def as_json(value: Any) -> dict[str, Any]:
    return node("builtins", "str", "JsonNode", content=json.dumps(value), is_json=True)


def called(full_name: str, *args: Any, loader: str = "ConstructorFromReduceNode") -> dict[str, Any]:
    module, _, kind = full_name.rpartition(".")
    return node(module, kind, loader, content=node("builtins", "tuple", "TupleNode", content=list(args)))


def skops_with(path: Path, attribute: str, value: Any) -> None:
    """An honest archive with one more attribute."""
    import skops.io

    honest = zipfile.ZipFile(io.BytesIO(skops.io.dumps(LogisticRegression().fit([[0.0], [1.0]], [0, 1]))))
    schema = json.loads(honest.read("schema.json"))
    attributes = schema["content"]
    attributes["content"][attribute] = value
    attributes["key_types"]["content"].append(dict(attributes["key_types"]["content"][0]))
    with zipfile.ZipFile(path, "w") as archive:
        for member in honest.namelist():
            content = json.dumps(schema) if member == "schema.json" else honest.read(member)
            archive.writestr(member, content)


def evil_nodes(marker: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    opened = called("numpy.memmap", as_json(str(marker)), as_json("uint8"), as_json("w+"), as_json(0), as_json(9))
    return {
        "a class that opens": ("x", opened),
        "a function with out=": ("x", called("numpy.positive", as_json(1), opened)),
        "a function alone": ("x", called("numpy.positive", as_json(1))),
        "an estimator that is called": ("x", called("sklearn.linear_model._logistic.LogisticRegression")),
        "an array of a class": ("x", node("numpy", "memmap", "NdArrayNode", type="json", content="[1]")),
        "a list of a class": ("x", node("numpy", "memmap", "ListNode", content=[])),
        "a state of a class": ("x", node("numpy", "memmap", "RandomStateNode", content={})),
        "a value that is made": ("x", node("numpy", "ndarray", "ObjectNode")),
        "a class that is kept": ("x", node("numpy", "memmap", "TypeNode")),
        "a method that is hidden": ("predict", node("numpy", "exp", "FunctionNode")),
        "a dunder": ("__class__", node("numpy", "float64", "TypeNode")),
    }


@pytest.mark.parametrize("kind", evil_nodes(Path("m")))
def test_skops_does_with_a_name_only_what_its_level_allows(kind: str, marker: Path, tmp_path: Path) -> None:
    skops_with(tmp_path / "m.skops", *evil_nodes(marker)[kind])
    with pytest.raises(UntrustedError):
        load_skops(tmp_path / "m.skops")


def test_honest_archives_load(tmp_path: Path) -> None:
    import skops.io

    skops_with(tmp_path / "m.skops", "x", as_json(1))
    assert load_skops(tmp_path / "m.skops").x == 1  # type: ignore[attr-defined]
    for model in (FunctionTransformer(np.log1p), SelectKBest(f_classif)):
        skops.io.dump(model, tmp_path / "m.skops")
        assert type(load_skops(tmp_path / "m.skops")) is type(model)
