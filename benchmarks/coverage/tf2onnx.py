"""Which cases of tf2onnx's own backend tests convert and agree, with tf2onnx alone and here.

`python -m benchmarks.coverage tf2onnx --suite FOLDER`, where FOLDER is `tests` of a checkout of tf2onnx; its tests
need the package `parameterized`. Each test function builds its model and its rows. Its own check is replaced: the
model is converted as a function of TensorFlow, by `tf2onnx.convert.from_function` and by `onnxtool.convert`, once
with the shapes of the rows and once with a dynamic batch: the first dimension of the first input, and of those that
share its size. Both are judged by ONNX Runtime against TensorFlow, within the tolerances of the test.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import tempfile
import unittest
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.coverage.table import Result, imported, installed, versions_line
from onnxtool.errors import MissingExtraError, OnnxtoolError
from onnxtool.models.onnx.artifact import first_line

SUITE = "ONNXTOOL_TF2ONNX_SUITE"
"""The environment variable with the folder of the tests, which the workers read."""

DYNAMIC = "/batch"
_OPSET = 18


@dataclass(frozen=True)
class Call:
    """What a test function asks to be checked.

    Attributes:
        function: Takes a tensor for each row in `rows`, and returns one tensor or several.
        rows: The inputs by name.
        tolerances: `rtol`, `atol`, and `mtol`, beyond which values are cut.
        values: Whether values are compared, or shapes and dtypes only, as of random numbers.
    """

    function: Callable[..., Any]
    rows: dict[str, NDArray[Any]]
    tolerances: dict[str, float | None] = field(default_factory=dict)
    values: bool = True


class _NoCaseError(Exception):
    """A test function has no model that can be converted as a function of TensorFlow."""


def case_names() -> list[str]:
    """Every test function, as shaped and with a dynamic batch."""
    names = unittest.TestLoader().getTestCaseNames(_suite().BackendTests)
    return [f"{name}{variant}" for name in names for variant in ("", DYNAMIC)]


def examine(case: str) -> Result:
    """Convert one case with tf2onnx alone and here; `bare` of the result is tf2onnx's outcome."""
    name, dynamic = case.removesuffix(DYNAMIC), case.endswith(DYNAMIC)
    try:
        calls = _calls(name)
    except _NoCaseError as error:
        return {"outcome": "no rows", "reason": str(error), "bare": "no rows"}
    if dynamic and not any(row.ndim for call in calls for row in call.rows.values()):
        return {"outcome": "no rows", "reason": "No input has a first dimension.", "bare": "no rows"}
    bare = _outcome(_bare, calls, dynamic=dynamic)
    ours = _outcome(_ours, calls, dynamic=dynamic)
    return {**ours, "bare": bare["outcome"]}


def versions() -> dict[str, str]:
    """The versions that decide what converts, where there is a suite."""
    imported("parameterized", "parameterized")
    _folder()
    return installed("tensorflow-cpu", "tf2onnx", "onnxruntime")


def to_markdown(results: Mapping[str, Result], versions: Mapping[str, str]) -> str:
    """Counts, the cases that are lost here, and those that neither converts.

    Args:
        results: What `examine` returned, by case.
        versions: Those that the results were found with.
    """
    lines = [
        "# tf2onnx's own backend tests",
        "",
        "Written by `python -m benchmarks.coverage tf2onnx --suite FOLDER --record reports/coverage/tf2onnx.json",
        "--markdown reports/coverage/tf2onnx.md`, with the folder `tests` of a checkout of tf2onnx; do not edit.",
        "Each model is converted by tf2onnx alone and here, and judged by ONNX Runtime against TensorFlow on the",
        "test's own rows and tolerances. Not counted: what the suite skips, models without inputs, and graphs of",
        "sessions of TensorFlow 1.",
        versions_line(versions),
        "",
        "| shapes | cases | agree with tf2onnx alone | agree here | lost here | only here |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for title, dynamic in (("as in the test", False), ("dynamic batch", True)):
        counted = {
            name: result
            for name, result in results.items()
            if name.endswith(DYNAMIC) == dynamic and result["outcome"] != "no rows"
        }
        here = {name for name, result in counted.items() if result["outcome"] == "agrees"}
        bare = {name for name, result in counted.items() if result["bare"] == "agrees"}
        counts = (len(counted), len(bare), len(here), len(bare - here), len(here - bare))
        lines.append(f"| {title} | {' | '.join(map(str, counts))} |")
    for title, lost in (("Lost here", True), ("Neither converts and agrees", False)):
        lines += ["", f"## {title}", "", "| case | outcome here | reason |", "| --- | --- | --- |"]
        lines += [
            f"| {name} | {result['outcome']} | {' '.join(result['reason'].split()).replace('|', '/')} |"
            for name, result in sorted(results.items())
            if result["outcome"] not in ("agrees", "no rows") and (result["bare"] == "agrees") == lost
        ]
    return "\n".join(lines) + "\n"


# -- The test functions ------------------------------------------------------------------------------------------


def _folder() -> str:
    """The folder of the tests.

    Raises:
        MissingExtraError: none is named.
    """
    folder = os.environ.get(SUITE, "")
    if not (Path(folder) / "test_backend.py").is_file():
        raise MissingExtraError("--suite FOLDER takes the folder `tests` of a checkout of tf2onnx.")
    return folder


def _suite() -> Any:
    """The module of the backend tests."""
    folder = _folder()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["TF2ONNX_TEST_OPSET"] = str(_OPSET)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with _undisturbed():
        return importlib.import_module("test_backend")


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep our arguments from the suite, which reads its own from the command line, and its chatter from us."""
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.argv = arguments


def _calls(name: str) -> list[Call]:
    """What a test function asks to be checked, without checking it."""
    found: list[Call] = []

    def record(
        _: object, function: Callable[..., Any], rows: dict[str, NDArray[Any]], *__: object, **settings: Any
    ) -> None:
        if settings.get("as_session") or settings.get("premade_placeholders"):
            raise _NoCaseError("It builds a graph for a session of TensorFlow 1.")
        if settings.get("process_args") or settings.get("use_custom_ops"):
            raise _NoCaseError("It sets options of tf2onnx that have no counterpart.")
        limits = {"rtol": settings.get("rtol", 1e-7), "atol": settings.get("atol", 1e-5)}
        given = {key.partition(":")[0]: np.asarray(row) for key, row in rows.items()}
        limits["mtol"] = settings.get("mtol")
        found.append(Call(function, given, limits, settings.get("check_value", True)))

    tests = _suite().BackendTests
    test = tests(name)
    test.run_test_case = record.__get__(test)
    try:
        with _undisturbed():
            test.setUp()
            getattr(test, name)()
    except unittest.SkipTest as error:
        raise _NoCaseError(f"The suite skips it: {first_line(error)}") from error
    except _NoCaseError:
        raise
    except Exception as error:  # a test that goes on with the graph that its own check returns
        if not found:
            raise _NoCaseError(f"It has no model of its own: {first_line(error)}") from error
    if not found or not all(call.rows for call in found):
        raise _NoCaseError("Its model has no inputs.")
    return found


# -- Both converters ---------------------------------------------------------------------------------------------

_Converter = Callable[[Any, Sequence[Any], Call, Path], None]


def _outcome(convert: _Converter, calls: Sequence[Call], *, dynamic: bool) -> Result:
    for call in calls:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = Path(folder) / "m.onnx"
            try:
                function, signature = _function(call, dynamic=dynamic)
                convert(function, signature, call, path)
            except OnnxtoolError as error:
                return {"outcome": "refused", "reason": str(error).replace(str(path), "the model")}
            except AssertionError as error:
                return {"outcome": "drifts", "reason": str(error)}
            except Exception as error:  # tf2onnx raises what comes up
                return {"outcome": "fails", "reason": f"{type(error).__name__}: {first_line(error)}"}
            try:
                _compare(function, call, path)
            except AssertionError as error:
                return {"outcome": "drifts", "reason": " ".join(str(error).split())[:300]}
            except Exception as error:  # ONNX Runtime's errors have no common base
                return {"outcome": "fails", "reason": f"ONNX Runtime: {first_line(error)}"}
    return {"outcome": "agrees", "reason": ""}


def _function(call: Call, *, dynamic: bool) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    shapes = [row.shape for row in call.rows.values()]
    batch = next((shape[0] for shape in shapes if shape), None) if dynamic else None
    signature = [
        tf.TensorSpec((None, *shape[1:]) if shape and shape[0] == batch else shape, tf.as_dtype(row.dtype), name)
        for shape, (name, row) in zip(shapes, call.rows.items(), strict=True)
    ]
    tf.random.set_seed(1)
    return tf.function(call.function, input_signature=signature), signature


def _bare(function: Any, signature: Sequence[Any], call: Call, path: Path) -> None:
    import tf2onnx

    tf2onnx.convert.from_function(function, signature, opset=_OPSET, output_path=str(path))


def _ours(function: Any, signature: Sequence[Any], call: Call, path: Path) -> None:
    from onnxtool.api import convert

    report = convert(function, path, data=dict(call.rows), opset=_OPSET)
    messages = " ".join(check.message for check in report.subjects[0].checks)
    if not report and call.values:
        raise AssertionError(messages)


def _compare(function: Any, call: Call, path: Path) -> None:
    """Compare ONNX Runtime's outputs with TensorFlow's.

    Raises:
        AssertionError: they differ, in values, shapes or dtypes.
    """
    import onnxruntime
    import tensorflow as tf

    tf.random.set_seed(1)
    expected = [value.numpy() for value in tf.nest.flatten(function(*map(tf.constant, call.rows.values())))]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    taken = {value.name.partition(":")[0]: value.name for value in session.get_inputs()}
    found = session.run(None, {taken[name]: row for name, row in call.rows.items() if name in taken})
    assert len(found) == len(expected), f"{len(found)} outputs, where TensorFlow has {len(expected)}"
    for theirs, ours in zip(expected, found, strict=True):
        _same(theirs, np.asarray(ours), call)


def _same(expected: NDArray[Any], found: NDArray[Any], call: Call) -> None:
    if expected.dtype == object:
        expected = np.array([text.decode("utf-8", "replace") for text in expected.flat], object).reshape(
            expected.shape
        )
    assert expected.shape == found.shape, f"shape {found.shape}, where TensorFlow has {expected.shape}"
    assert expected.dtype == found.dtype, f"dtype {found.dtype}, where TensorFlow has {expected.dtype}"
    if not call.values:
        return
    if expected.dtype.kind in "OUSb":
        np.testing.assert_array_equal(found, expected)
        return
    rtol, atol, mtol = call.tolerances["rtol"], call.tolerances["atol"], call.tolerances["mtol"]
    if mtol is not None:
        expected, found = np.clip(expected, -mtol, mtol), np.clip(found, -mtol, mtol)
    np.testing.assert_allclose(found, expected, rtol=rtol or 0, atol=atol or 0)
