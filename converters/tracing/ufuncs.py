"""NumPy's universal functions, and SciPy's, as nodes.

Inputs are cast to the dtypes of the loop that NumPy itself would choose. Where ONNX Runtime has an operator for
float32 alone, or an operator loses digits, float64 is computed by formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy
from numpy import dtype as DType  # noqa: N812

from onnxtool.converters.tracing.arrays import (
    OPERATIONS,
    Traced,
    UntraceableError,
    astype,
    emit,
    is_traced,
    lift,
)
from onnxtool.converters.tracing.text import compare_text

np: Any = numpy  # its annotations do not know traced arrays

OPERATORS = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow", "float_power": "Pow",
    "maximum": "Max", "minimum": "Min", "sqrt": "Sqrt", "exp": "Exp", "log": "Log", "absolute": "Abs", "fabs": "Abs",
    "negative": "Neg", "floor": "Floor", "ceil": "Ceil", "rint": "Round", "sign": "Sign", "sin": "Sin",
    "cos": "Cos", "tanh": "Tanh", "less": "Less", "less_equal": "LessOrEqual", "greater": "Greater",
    "greater_equal": "GreaterOrEqual", "equal": "Equal", "expit": "Sigmoid",
    "bitwise_and": "BitwiseAnd", "bitwise_or": "BitwiseOr", "bitwise_xor": "BitwiseXor", "invert": "BitwiseNot",
}  # fmt: skip
"""Universal functions that are an operator each."""

LOGICAL = {
    "add": "Or", "multiply": "And", "maximum": "Or", "minimum": "And", "bitwise_and": "And", "bitwise_or": "Or",
    "bitwise_xor": "Xor", "invert": "Not", "equal": "Equal", "not_equal": "Xor", "logical_and": "And",
    "logical_or": "Or", "logical_xor": "Xor", "logical_not": "Not", "absolute": "Identity",
}  # fmt: skip
"""The same on truth values."""

REDUCES = {
    "add": np.sum, "multiply": np.prod, "maximum": np.max, "minimum": np.min, "logical_and": np.all,
    "logical_or": np.any,
}  # fmt: skip


def call(ufunc: Any, method: str, inputs: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Do what a universal function does."""
    if method == "reduce" and ufunc.__name__ in REDUCES:
        axis = inputs[1] if len(inputs) > 1 else kwargs.pop("axis", 0)
        return REDUCES[ufunc.__name__](inputs[0], axis=axis, **kwargs)
    out, where = kwargs.pop("out", None), kwargs.pop("where", True)
    dtype = kwargs.pop("dtype", None)
    kwargs.pop("casting", None)
    if method != "__call__" or kwargs:
        raise UntraceableError(f"numpy.{ufunc.__name__}.{method}, which has no translation")
    if out is not None and not all(is_traced(each) or each is None for each in out):
        raise UntraceableError("out=, an array that no input brings. Leave it out")
    result = apply(ufunc, inputs)
    results = result if isinstance(result, tuple) else (result,)
    if dtype is not None:
        results = tuple(astype(each, np.dtype(dtype)) for each in results)
    if where is not True:
        if out is None:
            raise UntraceableError(f"numpy.{ufunc.__name__} with where= and without out=: the rest is undefined")
        results = tuple(np.where(where, each, old) for each, old in zip(results, out, strict=True))
    if out is not None:
        for each, old in zip(results, out, strict=True):
            old.become(each)
        results = out
    return results if len(results) > 1 else results[0]


def apply(ufunc: Any, inputs: Sequence[Any]) -> Any:
    """Write a universal function's nodes."""
    name = ufunc.__name__
    if any(getattr(value, "dtype", None) == object or isinstance(value, str) for value in inputs):
        return compare_text(name, *inputs)
    kinds = [
        type(v) if isinstance(v, int | float) and not isinstance(v, bool | np.generic) else _dtype(v)
        for v in inputs
    ]
    with np.errstate(all="ignore"):
        loop = ufunc.resolve_dtypes((*kinds, *[None] * ufunc.nout))
        values = [value.example if is_traced(value) else value for value in inputs]
        example = ufunc(*values)
    arguments = [
        astype(lift(value, None if is_traced(value) else d), d) for value, d in zip(inputs, loop, strict=False)
    ]
    examples = example if isinstance(example, tuple) else (example,)
    given = loop[0]
    if (formula := FORMULAS.get(name)) is not None and not (given == bool and name in LOGICAL):
        results = formula(*arguments)
    elif given == bool and name in LOGICAL:
        results = emit(LOGICAL[name], arguments, examples[0])
        if name == "equal":
            results = emit("Equal", arguments, examples[0])
    elif name in OPERATORS:
        results = _operator(OPERATORS[name], arguments, np.asarray(examples[0]))
    else:
        raise UntraceableError(f"{_home(ufunc)}.{name}, which has no translation")
    found = results if isinstance(results, tuple) else (results,)
    # Formulas are written as they compute; the example and its dtype are the function's own.
    done = tuple(_as(each, np.asarray(known)) for each, known in zip(found, examples, strict=True))
    return done if len(done) > 1 else done[0]


def _home(ufunc: Any) -> str:
    return "numpy" if hasattr(np, ufunc.__name__) else "scipy.special"


def _dtype(value: Any) -> DType[Any]:
    return value.dtype if is_traced(value) else np.asarray(value).dtype


def _as(array: Traced, example: Any) -> Traced:
    cast = astype(array, example.dtype)
    return Traced(cast.name, example if example.shape == cast.shape else cast.example)


WIDE = {"e": np.float32, "b": np.int64, "h": np.int64, "B": np.int64, "H": np.int64, "I": np.int64, "L": np.int64,
        "Q": np.int64, "?": np.int64}  # fmt: skip
"""What ONNX Runtime computes in, where it has no operator for a dtype."""


def _operator(kind: str, arguments: list[Traced], example: Any) -> Traced:
    if kind.startswith("Bitwise"):
        return emit(kind, arguments, example)
    wide = [astype(each, np.dtype(WIDE.get(each.dtype.char, each.dtype))) for each in arguments]
    truth = kind in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")
    dtype = np.dtype(bool) if truth else wide[0].dtype
    return astype(emit(kind, wide, example.astype(dtype)), example.dtype)


# -- Formulas ---------------------------------------------------------------------------------------------------

FORMULAS: dict[str, Callable[..., Any]] = {}


def _formula(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        FORMULAS.update(dict.fromkeys(names, function))
        return function

    return register


def _single(kind: str, x: Traced, example: Any) -> Traced:
    """An operator that ONNX Runtime has in float32 alone."""
    single = astype(x, np.dtype(np.float32))
    with np.errstate(all="ignore"):
        return astype(emit(kind, [single], np.asarray(example).astype(np.float32)), x.dtype)


@_formula("not_equal")
def _not_equal(a: Traced, b: Traced) -> Any:
    return np.logical_not(np.equal(a, b))


@_formula("logical_and", "logical_or", "logical_xor", "logical_not")
def _logical(*arguments: Traced) -> Any:
    raise AssertionError("NumPy's loops for these are chosen by dtype; see `_truth`")


def _truth(name: str) -> Callable[..., Any]:
    def formula(*arguments: Traced) -> Any:
        truths = [each if each.dtype == bool else np.not_equal(each, 0) for each in arguments]
        example = getattr(np, name)(*(each.example for each in truths))
        return emit(LOGICAL[name], truths, example)

    return formula


for _name in ("logical_and", "logical_or", "logical_xor", "logical_not"):
    FORMULAS[_name] = _truth(_name)


@_formula("isnan")
def _isnan(x: Traced) -> Any:
    return emit("IsNaN", [x], np.isnan(x.example)) if x.dtype.kind == "f" else np.not_equal(x, x)


@_formula("isinf")
def _isinf(x: Traced) -> Any:
    return emit("IsInf", [x], np.isinf(x.example)) if x.dtype.kind == "f" else np.not_equal(x, x)


@_formula("isfinite")
def _isfinite(x: Traced) -> Any:
    return np.logical_not(np.logical_or(np.isnan(x), np.isinf(x)))


@_formula("positive", "conjugate")
def _positive(x: Traced) -> Any:
    return x


@_formula("square")
def _square(x: Traced) -> Any:
    return x * x


@_formula("reciprocal")
def _reciprocal(x: Traced) -> Any:
    if x.dtype.kind != "f":
        raise UntraceableError("the reciprocal of whole numbers")
    return emit("Reciprocal", [x], np.reciprocal(x.example))


@_formula("trunc")
def _trunc(x: Traced) -> Any:
    return np.where(x < 0, np.ceil(x), np.floor(x)) if x.dtype.kind == "f" else x


@_formula("fmax")
def _fmax(a: Traced, b: Traced) -> Any:
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, np.maximum(a, b)))


@_formula("fmin")
def _fmin(a: Traced, b: Traced) -> Any:
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, np.minimum(a, b)))


@_formula("fmod")
def _fmod(a: Traced, b: Traced) -> Any:
    _no_zero_divisor(b)
    return emit("Mod", [a, b], np.fmod(a.example, b.example), fmod=1)


def _no_zero_divisor(b: Traced) -> None:
    """ONNX Runtime's process ends where whole numbers are divided by zero."""
    if b.dtype.kind in "iu" and not b.example.all():
        raise UntraceableError("whole numbers divided by what may be zero. Divide floats")


@_formula("remainder")
def _remainder(a: Traced, b: Traced) -> Any:
    if a.dtype.kind != "f":
        b = _nonzero(b)
        wide = [astype(each, np.dtype(np.int64)) for each in (a, b)]
        return emit("Mod", wide, np.remainder(wide[0].example, wide[1].example))
    rest = emit("Mod", [a, b], np.fmod(a.example, b.example), fmod=1)
    moved = np.where(np.not_equal(np.less(rest, 0), np.less(b, 0)), rest + b, rest)
    return np.where(rest == 0, np.copysign(rest, b), moved)


def _nonzero(b: Traced) -> Traced:
    """A divisor of whole numbers that is nowhere zero: NumPy gives 0 there, and ONNX Runtime's process would end."""
    _no_zero_divisor(b)
    return np.where(b == 0, np.ones((), b.dtype), b)


@_formula("floor_divide")
def _floor_divide(a: Traced, b: Traced) -> Any:
    """NumPy's own way: the quotient of what the remainder leaves, rounded."""
    if a.dtype.kind != "f":
        b = _nonzero(b)
        a, b = (astype(each, np.dtype(np.int64)) for each in (a, b))
        cut = emit("Div", [a, b], np.trunc(a.example / b.example).astype(np.int64))
        rest = a - cut * b
        return np.where(np.logical_and(rest != 0, np.not_equal(rest < 0, b < 0)), cut - 1, cut)
    rest = emit("Mod", [a, b], np.fmod(a.example, b.example), fmod=1)
    quotient = (a - rest) / b
    opposite = np.logical_and(rest != 0, np.not_equal(rest < 0, b < 0))
    quotient = np.where(opposite, quotient - 1, quotient)
    whole = np.floor(quotient)
    whole = np.where(quotient - whole > 0.5, whole + 1, whole)
    return np.where(b == 0, a / b, whole)


@_formula("divmod")
def _divmod(a: Traced, b: Traced) -> Any:
    return np.floor_divide(a, b), np.remainder(a, b)


@_formula("log1p")
def _log1p(x: Traced) -> Any:
    """Kahan's: the rounding of 1 + x cancels."""
    u = x + 1
    return np.where(np.logical_or(u == 1, np.isinf(x)), np.where(x < 0, np.nan, x), np.log(u) * x / (u - 1))


@_formula("expm1")
def _expm1(x: Traced) -> Any:
    u = np.exp(x)
    found = np.where(u - 1 == -1, -1, (u - 1) * x / np.log(u))
    return np.where(u == 1, x, np.where(np.isinf(u), u, found))


def _log_of(base: float) -> Callable[[Traced], Any]:
    def formula(x: Traced) -> Any:
        found = np.log(x) / x.dtype.type(math.log(base))
        near = np.rint(found)
        return np.where(np.power(x.dtype.type(base), near) == x, near, found)  # of whole powers exactly

    return formula


FORMULAS["log2"], FORMULAS["log10"] = _log_of(2.0), _log_of(10.0)


@_formula("exp2")
def _exp2(x: Traced) -> Any:
    return np.power(x.dtype.type(2), x)


@_formula("cbrt")
def _cbrt(x: Traced) -> Any:
    found = np.sign(x) * np.power(np.abs(x), x.dtype.type(1 / 3))
    better = found - (found - x / (found * found)) / 3
    return np.where(np.logical_or(x == 0, np.isinf(x)), x, better)


@_formula("hypot")
def _hypot(a: Traced, b: Traced) -> Any:
    return np.sqrt(a * a + b * b)


@_formula("logaddexp")
def _logaddexp(a: Traced, b: Traced) -> Any:
    return np.where(a == b, a + x_log2(a), np.maximum(a, b) + np.log1p(np.exp(-np.abs(a - b))))


def x_log2(a: Traced) -> Any:
    """The logarithm of 2, in an array's precision."""
    return a.dtype.type(math.log(2))


@_formula("deg2rad", "radians")
def _radians(x: Traced) -> Any:
    return x * x.dtype.type(math.pi / 180)


@_formula("rad2deg", "degrees")
def _degrees(x: Traced) -> Any:
    return x * x.dtype.type(180 / math.pi)


@_formula("copysign")
def _copysign(a: Traced, b: Traced) -> Any:
    negative = np.logical_or(b < 0, np.logical_and(b == 0, 1 / b < 0))
    return np.where(negative, -np.abs(a), np.abs(a))


@_formula("signbit")
def _signbit(x: Traced) -> Any:
    return np.logical_or(x < 0, np.logical_and(x == 0, 1 / x < 0))


@_formula("heaviside")
def _heaviside(x: Traced, middle: Traced) -> Any:
    found = np.where(x < 0, x.dtype.type(0), np.where(x == 0, middle, x.dtype.type(1)))
    return np.where(np.isnan(x), x, found)


@_formula("tan")
def _tan(x: Traced) -> Any:
    return np.sin(x) / np.cos(x)


@_formula("sinh")
def _sinh(x: Traced) -> Any:
    grown = np.expm1(np.abs(x))
    found = np.where(np.isinf(grown), grown, (grown + grown / (grown + 1)) / 2)
    return np.where(x < 0, -found, found)


@_formula("cosh")
def _cosh(x: Traced) -> Any:
    grown = np.exp(np.abs(x))
    return (grown + 1 / grown) / 2


@_formula("arcsinh")
def _arcsinh(x: Traced) -> Any:
    size = np.abs(x)
    found = np.log1p(size + size * size / (1 + np.sqrt(1 + size * size)))
    return np.where(np.isinf(x), x, np.where(x < 0, -found, found))


@_formula("arccosh")
def _arccosh(x: Traced) -> Any:
    return np.log(x + np.sqrt(x * x - 1))


@_formula("arctanh")
def _arctanh(x: Traced) -> Any:
    return np.log1p(2 * x / (1 - x)) / 2


@_formula("arctan")
def _arctan(x: Traced) -> Any:
    """The operator's single precision, with one step of Newton's to double."""
    with np.errstate(all="ignore"):
        first = _single("Atan", x, np.arctan(x.example))
    sine, cosine = np.sin(first), np.cos(first)
    rest = (x * cosine - sine) / (cosine + x * sine)
    half = x.dtype.type(math.pi / 2)
    return np.where(np.isinf(x), np.where(x < 0, -half, half), first + rest - rest * rest * rest / 3)


@_formula("arcsin")
def _arcsin(x: Traced) -> Any:
    return np.arctan(x / np.sqrt((1 - x) * (1 + x)))


@_formula("arccos")
def _arccos(x: Traced) -> Any:
    return 2 * np.arctan(np.sqrt((1 - x) / (1 + x)))


@_formula("arctan2")
def _arctan2(y: Traced, x: Traced) -> Any:
    pi = x.dtype.type(math.pi)
    found = np.arctan(y / x)
    turned = np.where(x < 0, np.where(np.signbit(y), found - pi, found + pi), found)
    along = np.where(np.signbit(x), np.copysign(pi, y), y)  # on the axis of x
    return np.where(np.logical_and(y == 0, np.logical_not(np.isnan(x))), along, turned)


@_formula("erf")
def _erf(x: Traced) -> Any:
    from scipy.special import erf

    return _single("Erf", x, erf(x.example))


@_formula("logit")
def _logit(x: Traced) -> Any:
    return np.log(x / (1 - x))


@_formula("xlogy")
def _xlogy(x: Traced, y: Traced) -> Any:
    return np.where(np.logical_and(x == 0, np.logical_not(np.isnan(y))), x.dtype.type(0), x * np.log(y))


@_formula("xlog1py")
def _xlog1py(x: Traced, y: Traced) -> Any:
    return np.where(np.logical_and(x == 0, np.logical_not(np.isnan(y))), x.dtype.type(0), x * np.log1p(y))


@_formula("matmul", "vecdot")
def _matmul(a: Traced, b: Traced) -> Any:
    return emit("MatMul", [a, b], np.matmul(a.example, b.example))


OPERATIONS["ufunc"] = call
