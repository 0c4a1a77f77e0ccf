"""The names that a pickled model may use, and the operations on each.

A pickle is a program: it names globals, calls them and sets attributes. A fitted estimator needs few of these
powers, so each name here is admitted at one of three levels, which say what operations of a pickle may do with it:

* `constructible`: an estimator class. An instance may be made without calling `__init__`, and given its state.
* `callable`: a constructor of plain data (arrays, dtypes, trees). It may be called, with arguments that it `accepts`.
  Scikit-learn's compiled classes are made in both ways.
* `value`: a function or a type that an estimator keeps as a parameter, as `SelectKBest(f_classif)` does. It may
  be kept; it may be neither called nor made while the pickle is read. All of them only compute.

`OPERATIONS` is the table of what each level allows. Nothing that opens, maps or imports is at any level, and a global
is an argument of a call only where that call takes it.

A name is checked before anything is imported, and its module is imported only when it belongs to a library
known here. Modules are never admitted as a whole: `sklearn.x.os.system` is a dotted name and refused, and a
class in a known library must be an estimator, or come from one of the compiled modules listed.

Names that look harmless and are not, with the reason why they are missing: `scipy.stats` distributions run
`exec` on a string of their state; `builtins.getattr` and `operator` calls turn data into calls, as would
`functools.partial`, which is admitted around a function of the third kind alone; `numpy.load` and `joblib.load`
open another pickle; `joblib.Memory` loads pickles from a folder.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxtool.errors import MissingExtraError, SourceError, require
from onnxtool.models.own_code import is_trusted

Level: TypeAlias = Literal["value", "callable", "constructible", "both"]
Operation: TypeAlias = Literal["REDUCE", "NEWOBJ"]

OPERATIONS: dict[Level, frozenset[Operation]] = {
    "value": frozenset(),
    "callable": frozenset({"REDUCE"}),
    "constructible": frozenset({"NEWOBJ"}),
    "both": frozenset({"REDUCE", "NEWOBJ"}),
}
"""Level to the operations of a pickle that may be done with a name. What one of them made may be given a state."""


Accepts: TypeAlias = Callable[[tuple[Any, ...]], bool]


@dataclass(frozen=True, slots=True)
class Admitted:
    """The result of looking up a name.

    Attributes:
        full_name: `module.name`, as the pickle spells it.
        level: What the pickle may do with it.
        value: The object: the thing itself, or a stand-in that does the safe part of it.
        accepts: Whether it may be called, or an instance be made, with these arguments. Before anything runs, an
            argument that is a global is an `Admitted`, and one that is an object yet to be made has a type of the
            reader's, whose `origin` says what makes it.
        pure: Whether calling it has no effect but its result, so that it may be called before everything is checked.
        trusted: Whether the user vouches for it.
    """

    full_name: str
    level: Level
    value: Any
    accepts: Accepts
    pure: bool = False
    trusted: bool = False

    def allows(self, operation: Operation, args: tuple[Any, ...]) -> bool:
        """Whether an operation may be done with it and these arguments."""
        return self.trusted or (operation in OPERATIONS[self.level] and self.accepts(args))


CLOUDPICKLE = "cloudpickle"
"""Its files hold code, which may do anything: who trusts it need trust no other name in them."""


def admit(module: str, name: str, trust: Sequence[str] = ()) -> Admitted | None:
    """Check a name that a pickle looks up.

    Args:
        module: The module, as the pickle spells it.
        name: The qualified name in the module.
        trust: Full names that the user vouches for, or their modules; they may do anything.

    Returns:
        What it stands for, or None when it is not known to be safe.

    Raises:
        SourceError: the name is known to be safe, but the installed library does not have it.
        MissingExtraError: its library is not installed.
    """
    full = f"{module}.{name}"
    if not is_trusted(full, trust):
        found = _known(full, module, name)
        if found is not None or CLOUDPICKLE not in trust:
            return found
    return Admitted(full, "both", _resolve_trusted(module, name), _anything, trusted=True)


def _known(full: str, module: str, name: str) -> Admitted | None:
    if not re.fullmatch(r"\w+(\.\w+)*", module) or not name.isidentifier():
        return None
    # NumPy 2 moved its internals; pickles of both layouts are read by both.
    module = re.sub(r"^numpy\.core\.", "numpy._core.", module)
    # Up to 1.6 scikit-learn's compiled losses gave their module without its package.
    module = "sklearn._loss._loss" if module == "_loss" else module
    key = f"{module}.{name}"
    if key in STAND_INS:
        level, value, accepts = STAND_INS[key]
        return Admitted(full, level, value, accepts, pure=value in (new_dtype, _latin1))
    if key in CALLABLE:
        return Admitted(full, "callable", _look_up(module, name), CALLABLE[key])
    if key in CONSTRUCTIBLE:
        return Admitted(full, "constructible", _look_up(module, name), _no_globals)
    if key in VALUES:
        return Admitted(full, "value", _look_up(module, name), _nothing)
    root = module.partition(".")[0]
    if root in ("numpy", "scipy"):
        return _ufunc(full, module, name)
    if root == "sklearn" and not UNSAFE_MODULES.intersection(module.split(".")):
        return _from_sklearn(full, module, name)
    if root == "imblearn" and not UNSAFE_MODULES.intersection(module.split(".")):
        return _subclass(full, module, name, ("sklearn.base.BaseEstimator",))
    if module == "interpret.glassbox._ebm._ebm":
        return _subclass(full, module, name, (f"{module}.EBMModel",))
    if root in ("category_encoders", "feature_engine"):
        return _subclass(full, module, name, ("sklearn.base.BaseEstimator",))
    if module in BOOSTING:
        return _subclass(full, module, name, BOOSTING[module])
    return None


UNSAFE_MODULES = frozenset(
    {"tests", "conftest", "externals", "datasets", "experimental", "_build_utils", "_test_common", "_testing"}
)
"""Parts of scikit-learn and imbalanced-learn that hold no fitted estimator."""

BOOSTING = {
    "xgboost.sklearn": ("xgboost.sklearn.XGBModel",),
    "xgboost.core": ("xgboost.core.Booster",),
    "lightgbm.sklearn": ("lightgbm.sklearn.LGBMModel",),
    "lightgbm.basic": ("lightgbm.basic.Booster",),
    "catboost.core": ("catboost.core.CatBoost",),
}
"""Modules of the boosting libraries, and the classes whose subclasses are models there."""

COMPONENT_CLASSES = (
    "sklearn.base.BaseEstimator",
    "sklearn.gaussian_process.kernels.Kernel",
    "sklearn.metrics._scorer._BaseScorer",
    "sklearn.model_selection._split.BaseCrossValidator",
    "sklearn.model_selection._split.BaseShuffleSplit",
    "sklearn.model_selection._split._RepeatedSplits",
)
"""Base classes in scikit-learn whose subclasses are estimators, or parts of one."""

COMPUTING_MODULES = frozenset(
    {
        "sklearn._loss._loss",
        "sklearn._loss.link",
        "sklearn._loss.loss",
        "sklearn.ensemble._gb_losses",
        "sklearn.ensemble._hist_gradient_boosting.predictor",
        "sklearn.linear_model._sgd_fast",
        "sklearn.metrics._dist_metrics",
        "sklearn.neighbors._ball_tree",
        "sklearn.neighbors._kd_tree",
        "sklearn.neighbors._quad_tree",
        "sklearn.neural_network._stochastic_optimizers",
        "sklearn.tree._criterion",
        "sklearn.tree._splitter",
        "sklearn.tree._tree",
    }
)
"""Modules, most of them compiled, in which every class holds numbers and computes, and nothing else."""

METRIC_MODULES = frozenset(
    {
        "sklearn.feature_selection._base",
        "sklearn.feature_selection._mutual_info",
        "sklearn.feature_selection._univariate_selection",
        "sklearn.metrics._classification",
        "sklearn.metrics._ranking",
        "sklearn.metrics._regression",
        "sklearn.metrics.cluster._supervised",
        "sklearn.metrics.pairwise",
    }
)
"""Modules in which every public function takes arrays and gives numbers."""

CONSTRUCTIBLE = frozenset(
    {
        "numpy.ma.MaskedArray",
        "numpy.ma.core.MaskedArray",
        "pandas.DataFrame",
        "pandas.Series",
        "pandas.arrays.ArrowStringArray",
        "pandas.arrays.StringArray",
        "pandas.core.arrays.string_.StringArray",
        "pandas.core.frame.DataFrame",
        "pandas.core.internals.managers.SingleBlockManager",
        "pandas.core.series.Series",
        "pandas.core.arrays.string_arrow.ArrowStringArray",
        "scipy.interpolate._bsplines.BSpline",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.cluster._birch._CFNode",
        "sklearn.cluster._birch._CFSubcluster",
        "sklearn.cluster._bisect_k_means._BisectingTree",
        "sklearn.compose._column_transformer.make_column_selector",
        "sklearn.metrics._scorer._MultimetricScorer",
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.utils.Bunch",
        "sklearn.utils._bunch.Bunch",
        "sklearn.utils._metadata_requests.MetadataRequest",
        "sklearn.utils._metadata_requests.MethodMetadataRequest",
        "sklearn.utils._metadata_requests.MethodPair",
        "sklearn.utils._metadata_requests.MethodMapping",
        *(
            f"scipy.sparse._{kind}.{kind}_{shape}"
            for kind in ("csr", "csc", "coo")
            for shape in ("matrix", "array")
        ),
        *(f"scipy.sparse.{kind}.{kind}_matrix" for kind in ("csr", "csc", "coo")),
    }
)
"""Classes outside the rules above whose instances may be made and given a state."""

VALUES = frozenset(
    {
        *(
            f"builtins.{kind}"
            for kind in ("bool", "bytes", "dict", "float", "int", "list", "object", "str", "tuple")
        ),
        "builtins.print",  # skorch's callbacks keep it as their sink
        *(f"numpy.{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
        *(f"numpy.float{bits}" for bits in (16, 32, 64)),
        *(f"numpy.{name}" for name in ("bool", "bool_", "ndarray", "object_", "str_")),
        *(f"numpy.{name}" for name in ("max", "mean", "median", "min", "sum", "std", "var", "nan_to_num")),
        "pandas.Index",
        "pandas.RangeIndex",
        "pandas.core.indexes.base.Index",
        "pandas.core.indexes.range.RangeIndex",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "sklearn.cluster._kmeans._kmeans_single_elkan",
        "sklearn.cluster._kmeans._kmeans_single_lloyd",
        "sklearn.cluster._kmeans.lloyd_iter_chunked_dense",
        "sklearn.utils.validation.check_array",
    }
)
"""Types and functions that an estimator keeps as a parameter."""


# -- Stand-ins: constructors whose full power is not needed ---------------------------------------------------


def new_dtype(spec: str, align: bool = False, copy: bool = False) -> np.dtype[Any]:
    """A dtype from its code, as `numpy.dtype` pickles itself: `f8`, `O8`, `V24`, `U5`, `M8`."""
    if not isinstance(spec, str) or not re.fullmatch(r"[|<>=]?[?bBhHiIlLqQuefdgcFDGSUVOmM]\d{0,9}", spec):
        raise ValueError(f"{spec!r} is no dtype code")
    return np.dtype(spec, align=bool(align), copy=True)


def set_dtype_state(dtype: np.dtype[Any], state: Any) -> None:
    """Give a new dtype its state, if it is one that NumPy itself would write for it.

    The state holds flags. `O8` with its flags cleared would let raw bytes pass for object pointers, which is
    a way to run code without naming anything. So the state must be equal to that of a dtype built afresh.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(state, tuple) or len(state) not in (8, 9):
        raise ValueError("a dtype's state is of an unknown form")
    fresh: np.dtype[Any] = np.dtype(dtype.str)
    names, fields = state[3], state[4]
    if names is not None:
        if not all(isinstance(fields[name], tuple) and len(fields[name]) == 2 for name in names):
            raise ValueError("a structured dtype's state is of an unknown form")
        fresh = np.dtype(
            {
                "names": list(names),
                "formats": [fields[name][0] for name in names],
                "offsets": [fields[name][1] for name in names],
                "itemsize": state[5],
            }
        )
    expected = fresh.__reduce__()[2]
    # The state may have any byte order; alignment only shows how the padding was made.
    version_, order, *rest = state[:8]
    same = rest[:3] == list(expected[2:5]) and rest[3] == expected[5] and (rest[5] ^ expected[7]) & ~ALIGNED == 0
    if version_ not in (3, 4) or order not in ("<", ">", "|", "=") or not same:
        raise ValueError("a dtype's state is not one that NumPy writes")
    dtype.__setstate__(state)  # type: ignore[attr-defined]


ALIGNED = 0x80
"""NumPy's flag NPY_ALIGNED_STRUCT."""


def _empty_array(kind: type, shape: tuple[int, ...], code: object) -> Any:
    return np.ndarray.__new__(kind, (0,), "b")


def _scalar(dtype: np.dtype[Any], data: bytes) -> Any:
    if dtype.hasobject or len(data) != dtype.itemsize:
        raise ValueError("a NumPy scalar is of an unknown form")
    return np.frombuffer(data, dtype=dtype, count=1)[0]


def _array(buffer: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> Any:
    if dtype.hasobject:
        raise ValueError("an array of objects cannot come from raw bytes")
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


def _latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def _bytes(*args: Any) -> bytes:
    return b"" if not args else _latin1(*args) if isinstance(args[0], str) else bytes(args[0])


def _bytearray(*args: Any) -> bytearray:
    return bytearray(_bytes(*args))


def _reconstruct(kind: type, base: type, state: Any) -> Any:
    return object.__new__(kind) if base is object else base.__new__(kind, state)


def _restore_arrow_array(data: Any) -> Any:
    array = require("pyarrow.lib", "sklearn")._restore_array(data)
    array.validate(full=True)  # offsets come from the file; unchecked, they read outside the buffers
    return array


def _is(argument: object, *names: str) -> bool:
    return isinstance(argument, Admitted) and argument.full_name.replace("numpy.core.", "numpy._core.") in names


def _anything(args: tuple[Any, ...]) -> bool:
    return True


def _nothing(args: tuple[Any, ...]) -> bool:
    return False


def _makes(found: Admitted) -> bool:
    """Whether instances of a class may be made."""
    return found.trusted or "NEWOBJ" in OPERATIONS[found.level]


def _plain_bases(args: tuple[Any, ...]) -> bool:
    bases = (f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in ("object", "dict"))
    return len(args) == 3 and isinstance(args[0], Admitted) and _makes(args[0]) and _is(args[1], *bases)


def _encodes_latin1(args: tuple[Any, ...]) -> bool:
    return len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin1", "latin-1", "iso-8859-1")


def _byte_data(args: tuple[Any, ...]) -> bool:
    return (
        not args
        or _encodes_latin1(args)
        or (len(args) == 1 and not isinstance(args[0], int) and _no_globals(args))
    )


def _empty_ndarray(args: tuple[Any, ...]) -> bool:
    return len(args) == 3 and _is(args[0], "numpy.ndarray") and args[1] == (0,)


def _no_globals(args: Any) -> bool:
    """Whether arguments are data alone, to the last of what is in them."""
    waiting, seen = [args], set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Admitted):
            return False
        if isinstance(value, tuple | list | set | frozenset | dict) and id(value) not in seen:
            seen.add(id(value))
            waiting += [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return True


def _takes(*places: Sequence[str], globals_only: int = 0) -> Accepts:
    """Arguments of which the first ones are among these globals, or what these make, and the rest are data.

    Args:
        places: The names that each of the first arguments may have.
        globals_only: How many of them must be the globals themselves.
    """

    def accepts(args: tuple[Any, ...]) -> bool:
        first, rest = args[: len(places)], args[len(places) :]
        for place, (argument, names) in enumerate(zip(first, places, strict=False)):
            made = getattr(argument, "origin", None) in names and place >= globals_only
            if not (_is(argument, *names) or made):
                return False
        return len(first) >= globals_only and _no_globals(rest)

    return accepts


def _bit_generator(args: tuple[Any, ...]) -> bool:
    """NumPy's generators, by name, by class or, in newer pickles, made already."""
    if not args or len(args) > 2:
        return False
    found, *constructor = args
    known = (
        found in {name.rpartition(".")[2] for name in BIT_GENERATORS}
        if isinstance(found, str)
        else _is(found, *BIT_GENERATORS)
        or getattr(found, "origin", None) in (*BIT_GENERATORS, "numpy.random._pickle.__bit_generator_ctor")
    )
    return known and all(_is(one, "numpy.random._pickle.__bit_generator_ctor") for one in constructor)


def _masked(args: tuple[Any, ...]) -> bool:
    """The empty masked array from which unpickling starts."""
    kinds = ("numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray")
    return (
        len(args) == 4
        and _is(args[0], *kinds)
        and _is(args[1], "numpy.ndarray")
        and args[2] == (0,)
        and _no_globals(args[3])
    )


def _named_function(args: tuple[Any, ...]) -> bool:
    """Functions that only compute do so with some of their arguments given, too."""
    return len(args) == 1 and is_function(args[0])


def is_function(found: object) -> bool:
    """Whether a global is a function of which a partial may be made.

    No class, which would be made when the partial is called, nor `print`, which writes to a `file` that is given.
    """
    if not isinstance(found, Admitted):
        return False
    return found.trusted or (
        found.level == "value" and not isinstance(found.value, type) and found.value is not print
    )


def _container_factory(args: tuple[Any, ...]) -> bool:
    names = ("builtins.dict", "builtins.list", "builtins.int", "builtins.float", "collections.OrderedDict")
    return not args or (len(args) == 1 and (args[0] is None or _is(args[0], *names)))


def _default_dict(factory: Callable[[], Any] | None = None) -> Any:
    from collections import defaultdict

    return defaultdict(factory)


PARTIAL = "functools.partial"
MEMMAP = "numpy.memmap"
"""The class of an array that joblib saves of a file; what is made of it is a plain array."""


def _block(values: Any, placement: Any, ndim: int) -> Any:
    """A part of a data frame; the pandas function behind it takes any places."""
    if ndim != 2 or not isinstance(placement, slice | np.ndarray):
        raise ValueError("a part of a data frame is of an unknown form")
    places = (
        np.arange(placement.start, placement.stop, placement.step) if isinstance(placement, slice) else placement
    )
    rows = values.shape[0] if getattr(values, "ndim", 1) == 2 else 1
    if places.dtype.kind not in "iu" or len(places) != rows or (len(places) and places.min() < 0):
        raise ValueError("the places of a data frame's columns do not fit its values")
    return require("pandas._libs.internals", "sklearn")._unpickle_block(values, placement, ndim)


def _block_manager(blocks: Any, axes: Any) -> Any:
    """The parts of a data frame, which must fill it: pandas' compiled code does not look."""
    kind = require("pandas.core.internals.managers", "sklearn").BlockManager
    columns, rows = (len(axis) for axis in axes)
    places = np.concatenate([block.mgr_locs.as_array for block in blocks]) if len(blocks) else np.empty(0, int)
    fits = len(places) == columns and np.array_equal(np.sort(places), np.arange(columns))
    if not fits or any(block.shape[-1] != rows for block in blocks):
        raise ValueError("the parts of a data frame do not fill it")
    return kind(tuple(blocks), list(axes))


STAND_INS: dict[str, tuple[Level, Any, Accepts]] = {
    "_codecs.encode": ("callable", _latin1, _encodes_latin1),
    "builtins.bytearray": ("callable", _bytearray, _byte_data),
    "builtins.bytes": ("callable", _bytes, _byte_data),
    "collections.OrderedDict": ("both", OrderedDict, _no_globals),
    "collections.defaultdict": ("callable", _default_dict, _container_factory),
    "copyreg._reconstructor": ("callable", _reconstruct, _plain_bases),
    PARTIAL: ("callable", functools.partial, _named_function),
    "numpy._core.multiarray._reconstruct": ("callable", _empty_array, _empty_ndarray),
    "numpy._core.multiarray.scalar": ("callable", _scalar, _no_globals),
    "numpy._core.numeric._frombuffer": ("callable", _array, _no_globals),
    "numpy.dtype": ("callable", new_dtype, _no_globals),
    MEMMAP: ("value", np.ndarray, _nothing),
    "pandas._libs.internals._unpickle_block": ("callable", _block, _no_globals),
    "pandas.core.internals.managers.BlockManager": ("callable", _block_manager, _no_globals),
    "pyarrow.lib._restore_array": ("callable", _restore_arrow_array, _no_globals),
}

BIT_GENERATORS = (
    "numpy.random._mt19937.MT19937",
    "numpy.random._pcg64.PCG64",
    "numpy.random._pcg64.PCG64DXSM",
    "numpy.random._philox.Philox",
    "numpy.random._sfc64.SFC64",
)
_INDEXES = (
    "pandas.Index",
    "pandas.RangeIndex",
    "pandas.core.indexes.base.Index",
    "pandas.core.indexes.range.RangeIndex",
)
_SEED = "numpy.random.bit_generator.SeedSequence"

CALLABLE: dict[str, Accepts] = {
    "builtins.complex": _no_globals,
    "builtins.frozenset": _no_globals,
    "builtins.set": _no_globals,
    "builtins.slice": _no_globals,
    "numpy.ma.core._mareconstruct": _masked,
    **dict.fromkeys((*BIT_GENERATORS, _SEED), _no_globals),
    "numpy.random._pickle.__bit_generator_ctor": _bit_generator,
    "numpy.random._pickle.__generator_ctor": _bit_generator,
    "numpy.random._pickle.__randomstate_ctor": _bit_generator,
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence": _takes((_SEED,), globals_only=1),
    "pandas.StringDtype": _no_globals,
    "pandas.core.arrays.string_.StringDtype": _no_globals,
    "pandas.core.indexes.base._new_Index": _takes(_INDEXES, globals_only=1),
    "pyarrow.lib.py_buffer": _no_globals,
    "pyarrow.lib.type_for_alias": _no_globals,
}
"""Constructors that may be called, and with what."""


# -- Look-ups -------------------------------------------------------------------------------------------------


def _ufunc(full: str, module: str, name: str) -> Admitted | None:
    """NumPy's and SciPy's universal functions: they take arrays and give arrays."""
    if module not in ("numpy", "scipy.special", "scipy.special._ufuncs", "numpy._core._multiarray_umath"):
        return None
    value = getattr(importlib.import_module(module), name, None)
    return Admitted(full, "value", value, _nothing) if isinstance(value, np.ufunc) else None


def _of_module(module: str) -> Accepts:
    """Data, after a class of the same compiled module if any."""

    def accepts(args: tuple[Any, ...]) -> bool:
        first = args[0] if args else None
        if isinstance(first, Admitted):
            known = first.full_name.rpartition(".")[0] == module and isinstance(first.value, type)
            return known and _no_globals(args[1:])
        return _no_globals(args)

    return accepts


def _from_sklearn(full: str, module: str, name: str) -> Admitted | None:
    if module in COMPUTING_MODULES:
        value = _look_up(module, name)
        if (isinstance(value, type) and value.__module__ == module) or re.match(r"newObj$|__pyx_unpickle_", name):
            return Admitted(full, "both" if isinstance(value, type) else "callable", value, _of_module(module))
        return None
    if module in METRIC_MODULES:
        value = _look_up(module, name)
        if not isinstance(value, type):
            is_metric = callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == module
            return Admitted(full, "value", value, _nothing) if is_metric else None
    return _subclass(full, module, name, COMPONENT_CLASSES)


def _subclass(full: str, module: str, name: str, bases: Iterable[str]) -> Admitted | None:
    value = _look_up(module, name)
    known = tuple(_look_up(*base.rsplit(".", 1)) for base in bases)
    home = getattr(value, "__module__", "").partition(".")[0]
    if isinstance(value, type) and issubclass(value, known) and home == module.partition(".")[0]:
        return Admitted(full, "constructible", value, _no_globals)
    return None


DISTRIBUTIONS = {"sklearn": "scikit-learn", "imblearn": "imbalanced-learn"}
EXTRAS = {
    "xgboost": "boosting",
    "lightgbm": "boosting",
    "catboost": "boosting",
    "interpret": "interpret",
    "category_encoders": "contrib",
    "feature_engine": "contrib",
}


def _look_up(module: str, name: str) -> Any:
    root = module.partition(".")[0]
    if root == "imblearn":
        try:
            importlib.import_module(root)
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "The model uses imbalanced-learn. Install it with: pip install imbalanced-learn"
            ) from error
    else:
        require(root, EXTRAS.get(root, "sklearn"))
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise SourceError(
            f"uses {module}.{name}, which {_installed(root)} does not have. "
            "Open it with the version that saved it, and save it again."
        ) from error


def _installed(root: str) -> str:
    distribution = DISTRIBUTIONS.get(root, root)
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return distribution


def _resolve_trusted(module: str, name: str) -> Any:
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        remedy = (
            "It is of the script or notebook that saved the file: name that with --code, as in --code train.py."
            if module == "__main__"
            else "Install the package that has it, or give the folder of its module with --code."
        )
        raise SourceError(f"uses {module}.{name}, which is trusted but cannot be imported. {remedy}") from error
