"""Which names a pickled model may use, and what it may do with them.

A pickle is a program: it names globals, calls them and sets attributes. A fitted estimator needs few of these
powers, so each name here is admitted for one of three uses:

* `make`: an estimator class. An instance may be made without calling `__init__`, and given its state.
* `call`: a constructor of plain data (arrays, dtypes, trees). It may be called.
* `name`: a function or a type that an estimator keeps as a parameter, as `SelectKBest(f_classif)` does. It may
  be kept; it may not be called while the pickle is read. All of them only compute.

A name is judged before anything is imported, and its module is imported only when it belongs to a library
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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxtool.errors import MissingExtraError, SourceError, require

Use: TypeAlias = Literal["make", "call", "name"]


@dataclass(frozen=True, slots=True)
class Admitted:
    """What looking up a name gives.

    Attributes:
        full_name: `module.name`, as the pickle says it.
        use: What the pickle may do with it.
        value: The object: the thing itself, or a stand-in that does the safe part of it.
        accepts: Whether it may be called with these arguments. Before anything runs, an argument that is a
            global is an `Admitted`, and one that is an object yet to be made has a type of the reader's.
        pure: Whether calling it has no effect but its result, so that it may be called before all is judged.
    """

    full_name: str
    use: Use
    value: Any
    accepts: Callable[[tuple[Any, ...]], bool] = lambda _: True
    pure: bool = False


def admit(module: str, name: str, trust: Sequence[str] = ()) -> Admitted | None:
    """Judge a name that a pickle looks up.

    Args:
        module: The module, as the pickle says it.
        name: The qualified name in the module.
        trust: Full names that the user vouches for; they may do anything.

    Returns:
        What it stands for, or None when it is not known to be safe.

    Raises:
        SourceError: the name is known to be safe, but the installed library does not have it.
        MissingExtraError: its library is not installed.
    """
    full = f"{module}.{name}"
    if full in trust:
        return Admitted(full, "call", _resolve_trusted(module, name))
    if not re.fullmatch(r"\w+(\.\w+)*", module) or not name.isidentifier():
        return None
    # NumPy 2 moved its internals; pickles of both layouts are read by both.
    module = re.sub(r"^numpy\.core\.", "numpy._core.", module)
    key = f"{module}.{name}"
    if key in STAND_INS:
        use, value, accepts = STAND_INS[key]
        return Admitted(full, use, value, accepts, pure=value in (new_dtype, _latin1))
    if key in CALLED:
        return Admitted(full, "call", _look_up(module, name), _only_classes_and_data)
    if key in MADE:
        return Admitted(full, "make", _look_up(module, name))
    if key in NAMED:
        return Admitted(full, "name", _look_up(module, name))
    root = module.partition(".")[0]
    if root in ("numpy", "scipy"):
        return _ufunc(full, module, name)
    if root == "sklearn" and not UNSAFE_MODULES.intersection(module.split(".")):
        return _from_sklearn(full, module, name)
    if root == "imblearn" and not UNSAFE_MODULES.intersection(module.split(".")):
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

MADE = frozenset(
    {
        "collections.OrderedDict",
        "numpy.ma.MaskedArray",
        "numpy.ma.core.MaskedArray",
        "pandas.arrays.ArrowStringArray",
        "pandas.arrays.StringArray",
        "pandas.core.arrays.string_.StringArray",
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

CALLED = frozenset(
    {
        "builtins.complex",
        "builtins.frozenset",
        "builtins.set",
        "builtins.slice",
        "numpy.ma.core._mareconstruct",
        "numpy.random._mt19937.MT19937",
        "numpy.random._pcg64.PCG64",
        "numpy.random._pcg64.PCG64DXSM",
        "numpy.random._philox.Philox",
        "numpy.random._pickle.__bit_generator_ctor",
        "numpy.random._pickle.__generator_ctor",
        "numpy.random._pickle.__randomstate_ctor",
        "numpy.random._sfc64.SFC64",
        "numpy.random.bit_generator.SeedSequence",
        "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
        "pandas.StringDtype",
        "pandas.core.arrays.string_.StringDtype",
        "pandas.core.indexes.base._new_Index",
        "pyarrow.lib.py_buffer",
        "pyarrow.lib.type_for_alias",
    }
)
"""Constructors that may be called with data, with admitted classes, and with each other's results."""

NAMED = frozenset(
    {
        *(
            f"builtins.{kind}"
            for kind in ("bool", "bytes", "dict", "float", "int", "list", "object", "str", "tuple")
        ),
        *(f"numpy.{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
        *(f"numpy.float{bits}" for bits in (16, 32, 64)),
        *(f"numpy.{name}" for name in ("bool", "bool_", "ndarray", "object_", "str_", "memmap")),
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
    # Byte order is the state's to say; alignment only tells how padding came about.
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


def _plain_bases(args: tuple[Any, ...]) -> bool:
    bases = (f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in ("object", "dict"))
    return len(args) == 3 and isinstance(args[0], Admitted) and args[0].use != "name" and _is(args[1], *bases)


def _encodes_latin1(args: tuple[Any, ...]) -> bool:
    return len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin1", "latin-1", "iso-8859-1")


def _byte_data(args: tuple[Any, ...]) -> bool:
    return not args or _encodes_latin1(args) or (len(args) == 1 and not isinstance(args[0], int | Admitted))


def _empty_ndarray(args: tuple[Any, ...]) -> bool:
    return len(args) == 3 and _is(args[0], "numpy.ndarray") and args[1] == (0,)


def _no_globals(args: tuple[Any, ...]) -> bool:
    return not any(isinstance(argument, Admitted) for argument in args)


def _only_classes_and_data(args: tuple[Any, ...]) -> bool:
    return all(
        isinstance(argument.value, type) or argument.full_name in CALLED
        for argument in args
        if isinstance(argument, Admitted)
    )


def _named_function(args: tuple[Any, ...]) -> bool:
    """Functions that only compute do so with some of their arguments given, too."""
    return len(args) == 1 and isinstance(args[0], Admitted) and args[0].use == "name"


def _container_factory(args: tuple[Any, ...]) -> bool:
    names = ("builtins.dict", "builtins.list", "builtins.int", "builtins.float", "collections.OrderedDict")
    return not args or (len(args) == 1 and (args[0] is None or _is(args[0], *names)))


def _default_dict(factory: Callable[[], Any] | None = None) -> Any:
    from collections import defaultdict

    return defaultdict(factory)


PARTIAL = "functools.partial"

STAND_INS: dict[str, tuple[Use, Any, Callable[[tuple[Any, ...]], bool]]] = {
    "_codecs.encode": ("call", _latin1, _encodes_latin1),
    "builtins.bytearray": ("call", _bytearray, _byte_data),
    "builtins.bytes": ("call", _bytes, _byte_data),
    "collections.defaultdict": ("call", _default_dict, _container_factory),
    "copyreg._reconstructor": ("call", _reconstruct, _plain_bases),
    PARTIAL: ("call", functools.partial, _named_function),
    "numpy._core.multiarray._reconstruct": ("call", _empty_array, _empty_ndarray),
    "numpy._core.multiarray.scalar": ("call", _scalar, _no_globals),
    "numpy._core.numeric._frombuffer": ("call", _array, _no_globals),
    "numpy.dtype": ("call", new_dtype, _no_globals),
    "pyarrow.lib._restore_array": ("call", _restore_arrow_array, _no_globals),
}


# -- Look-ups -------------------------------------------------------------------------------------------------


def _ufunc(full: str, module: str, name: str) -> Admitted | None:
    """NumPy's and SciPy's universal functions: they take arrays and give arrays."""
    if module not in ("numpy", "scipy.special", "scipy.special._ufuncs", "numpy._core._multiarray_umath"):
        return None
    value = getattr(importlib.import_module(module), name, None)
    return Admitted(full, "name", value) if isinstance(value, np.ufunc) else None


def _from_sklearn(full: str, module: str, name: str) -> Admitted | None:
    if module in COMPUTING_MODULES:
        value = _look_up(module, name)
        if (isinstance(value, type) and value.__module__ == module) or re.match(r"newObj$|__pyx_unpickle_", name):
            return Admitted(full, "call", value, _only_classes_and_data)
        return None
    if module in METRIC_MODULES:
        value = _look_up(module, name)
        if not isinstance(value, type):
            is_metric = callable(value) and not name.startswith("_") and value.__module__ == module
            return Admitted(full, "name", value) if is_metric else None
    return _subclass(full, module, name, COMPONENT_CLASSES)


def _subclass(full: str, module: str, name: str, bases: Iterable[str]) -> Admitted | None:
    value = _look_up(module, name)
    known = tuple(_look_up(*base.rsplit(".", 1)) for base in bases)
    home = getattr(value, "__module__", "").partition(".")[0]
    if isinstance(value, type) and issubclass(value, known) and home == module.partition(".")[0]:
        return Admitted(full, "make", value)
    return None


DISTRIBUTIONS = {"sklearn": "scikit-learn", "imblearn": "imbalanced-learn"}
EXTRAS = {"xgboost": "boosting", "lightgbm": "boosting", "catboost": "boosting"}


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
        raise SourceError(
            f"uses {module}.{name}, which is trusted but cannot be imported. "
            "Install the package that has it, or put its folder on PYTHONPATH."
        ) from error
