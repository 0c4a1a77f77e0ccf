"""Every rule of the linter, broken by a model, with the real ML.NET's answer."""

from __future__ import annotations

import locale
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.source import OnnxSource
from onnxtool.targets.mlnet.releases import Deployment, find_release
from onnxtool.targets.mlnet.rules import RULES, rules_of

DOTNET = shutil.which("dotnet") or os.environ.get("ONNXTOOL_REQUIRE_DOTNET")

RELEASES = {"bundled": "1.5.0-preview2", "pinned": "5.0.0", "current": "5.0.1"}
"""The release of ML.NET that has the native library, by its name in `mlnet`."""

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
X = {"x": {"dtype": "float32", "values": ROWS}}


def tensor(
    name: str, dtype: int = FLOAT, shape: Sequence[int | str | None] | None = ("N", 3)
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def model(
    inputs: Sequence[onnx.ValueInfoProto] = (tensor("x"),),
    outputs: Sequence[onnx.ValueInfoProto] = (tensor("y"),),
    nodes: Sequence[onnx.NodeProto] = (node("Neg", "x", "y"),),
    weights: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 11,
    ir_version: int = 6,
    ml: int = 2,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "broken", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def weight(dtype: int, name: str = "w") -> onnx.TensorProto:
    return helper.make_tensor(name, dtype, [3], [1, 2, 3])


def weighted(dtype: int, **versions: int) -> onnx.ModelProto:
    nodes = [node("Cast", "w", "v", to=FLOAT), node("Mul", "x v", "y")]
    return model(nodes=nodes, weights=[weight(dtype)], **versions)


def stored_outside() -> onnx.ModelProto:
    """Only weights that lie in the file as bytes can lie outside it."""
    return model(
        nodes=[node("Mul", "x w", "y")],
        weights=[numpy_helper.from_array(np.array([1, 2, 3], dtype=np.float32), "w")],
    )


def casting(given: int, taken: int, **versions: int) -> onnx.ModelProto:
    """x of one dtype, y of another."""
    nodes = [node("Cast", "x", "f", to=FLOAT), node("Neg", "f", "g"), node("Cast", "g", "y", to=taken)]
    return model([tensor("x", given)], [tensor("y", taken)], nodes, **versions)


def vector(values: Sequence[int], name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def zipmap(**classes: Any) -> onnx.ModelProto:
    kind = STRING if "classlabels_strings" in classes else INT64
    of_maps = helper.make_map_type_proto(kind, helper.make_tensor_type_proto(FLOAT, None))
    output = helper.make_value_info("z", helper.make_sequence_type_proto(of_maps))
    return model(outputs=[output], nodes=[node("ZipMap", "x", "z", domain="ai.onnx.ml", **classes)])


def sequence(name: str) -> onnx.ValueInfoProto:
    return helper.make_value_info(
        name, helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, ["N", 3]))
    )


def optional(name: str) -> onnx.ValueInfoProto:
    return helper.make_value_info(
        name, helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["N", 3]))
    )


def nested(depth: int) -> onnx.ModelProto:
    """If within If; each lies three messages deeper than the last."""

    def branch(level: int, name: str) -> list[onnx.NodeProto]:
        if not level:
            return [node("Neg", "x", name)]
        inner = helper.make_graph(branch(level - 1, f"{name}t"), "then", [], [tensor(f"{name}t")])
        other = helper.make_graph([node("Abs", "x", f"{name}e")], "else", [], [tensor(f"{name}e")])
        return [node("If", "c", name, then_branch=inner, else_branch=other)]

    return model(nodes=branch(depth, "y"), weights=[numpy_helper.from_array(np.array(True), "c")])


def slots(count: int) -> onnx.ModelProto:
    names = [f"class {place}" for place in range(count)]
    label = node(
        "LabelEncoder", "asked", "answer", domain="ai.onnx.ml", name="mlnet.y.SlotNames",
        keys_strings=names, values_int64s=list(range(count)),
    )  # fmt: skip
    jobs = numpy_helper.from_array(np.array([["one"]], dtype=object), "asked")
    return model(nodes=[node("Neg", "x", "y"), label], weights=[jobs])


def widened(shape: Sequence[int | str], size: int) -> onnx.ModelProto:
    """x of a shape given, y its elements in one vector."""
    return model(
        [tensor("x", FLOAT, shape)],
        [tensor("y", FLOAT, [size])],
        [node("Reshape", "x s", "y")],
        [vector([-1], "s")],
    )


def column(values: Any, name: str = "x", dtype: str = "float32") -> dict[str, Any]:
    return {name: {"dtype": dtype, "values": values}}


@dataclass(frozen=True)
class Case:
    """A model that breaks a rule.

    Attributes:
        rule: Name of its check in `mlnet_checks`.
        broken: The model.
        refused: What ML.NET says to it with columns that fit it: the stage and a part of the type or message. None
            where it takes it.
        columns: The columns that fit it.
        native: The native library.
        options: More of the job: `zip`, `shapes`.
        external: Whether its weights are in an external file.
        repaired_columns: The columns that fit the repaired model, where others than before do.
        stays: Whether it cannot be repaired, though others that break the rule can.
        runs: Whether ONNX Runtime's Python can run it: it has no bfloat16.
    """

    rule: str
    broken: onnx.ModelProto
    refused: tuple[str, str] | None = None
    columns: dict[str, Any] = field(default_factory=lambda: X)
    native: str = "bundled"
    options: dict[str, Any] = field(default_factory=dict)
    external: bool = False
    repaired_columns: dict[str, Any] | None = None
    stays: bool = False
    runs: bool = True


OTHERS = [
    (TensorProto.DOUBLE, "float64"),
    (TensorProto.INT32, "int32"),
    (TensorProto.INT16, "int16"),
    (TensorProto.INT8, "int8"),
]


def lacks(name: str) -> bool:
    """Whether this machine has no such locale."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, name)
    except locale.Error:
        return True
    locale.setlocale(locale.LC_CTYPE, before)
    return False


def imported(
    *opsets: tuple[str, int], nodes: Sequence[onnx.NodeProto] = (node("Neg", "x", "y"),)
) -> onnx.ModelProto:
    """A model with exactly these operator sets."""
    made = model(nodes=nodes, ir_version=8)
    del made.opset_import[:]
    made.opset_import.extend(helper.make_opsetid(*opset) for opset in opsets)
    return made


def without_ir() -> onnx.ModelProto:
    made = model()
    made.ClearField("ir_version")
    return made


def in_a_function() -> onnx.ModelProto:
    """A custom operator in the body of a function."""
    made = imported(("", 17), ("f", 1), nodes=[node("F", "x", "y", domain="f")])
    body = [node("Swap", "a", "b", domain="my.ops")]
    made.functions.append(helper.make_function("f", "F", ["a"], ["b"], body, [helper.make_opsetid("my.ops", 1)]))
    return made


TEXTS = column([["A"], ["b"]], dtype="string")
NORMALIZED = model(
    [tensor("x", STRING, ["N"])],
    [tensor("y", STRING, ["N"])],
    [node("StringNormalizer", "x", "y", case_change_action="LOWER")],
)

UNSUPPORTED = ("load", "Unsupported ONNX scalar type")
CASES = [
    Case("external", stored_outside(), ("fit", "OnnxRuntimeException"), options={"zip": True}, external=True),
    Case("too_deep", nested(2), ("load", "too many levels of nesting")),
    Case("foreign_weights", weighted(TensorProto.FLOAT16), UNSUPPORTED),
    Case("foreign_weights", weighted(TensorProto.BFLOAT16, opset=13, ir_version=8), UNSUPPORTED, native="pinned"),
    Case(
        "foreign_weights", weighted(TensorProto.FLOAT8E4M3FN, opset=19, ir_version=9), UNSUPPORTED, native="pinned"
    ),
    Case("foreign_weights", weighted(TensorProto.INT4, opset=21, ir_version=10), UNSUPPORTED, native="pinned"),
    Case("foreign_weights", weighted(TensorProto.UINT4, opset=21, ir_version=10), UNSUPPORTED, native="pinned"),
    Case("foreign_dtype", casting(TensorProto.FLOAT16, FLOAT), UNSUPPORTED),
    Case("foreign_dtype", casting(FLOAT, TensorProto.FLOAT16), UNSUPPORTED),
    Case(
        "foreign_dtype",
        casting(TensorProto.BFLOAT16, FLOAT, opset=13, ir_version=8),
        UNSUPPORTED,
        native="pinned",
        runs=False,
    ),
    Case(
        "foreign_dtype",
        model(
            [tensor("x"), tensor("w", TensorProto.FLOAT16, [3])],
            nodes=[node("Cast", "w", "v", to=FLOAT), node("Mul", "x v", "y")],
            weights=[weight(TensorProto.FLOAT16)],
        ),
        UNSUPPORTED,
    ),
    *(
        Case("other_inputs", casting(kind, FLOAT), columns=column([[1, 2, 3], [4, 5, 6]], dtype=dtype))
        for kind, dtype in OTHERS
    ),
    *(Case("other_outputs", casting(FLOAT, kind)) for kind, _ in OTHERS),
    Case(
        "other_inputs",
        model([tensor("x", TensorProto.BOOL)], [tensor("y", TensorProto.BOOL)], [node("Not", "x", "y")]),
        columns=column([[True, False, True]], dtype="bool"),
    ),
    Case(
        "no_tensor",
        model([tensor("x"), optional("o")], opset=16, ir_version=8),
        ("load", "Unsupported ONNX variable type"),
        native="pinned",
    ),
    Case(
        "no_tensor",
        model(
            [tensor("q"), helper.make_sparse_tensor_value_info("x", FLOAT, ["N", 3])],
            nodes=[node("Neg", "q", "y")],
        ),
        ("load", "Unsupported ONNX variable type"),
        column(ROWS, "q"),
        native="pinned",
    ),
    Case(
        "no_tensor",
        model(
            [sequence("x")],
            nodes=[node("SequenceAt", "x i", "y")],
            weights=[numpy_helper.from_array(np.array(0), "i")],
        ),
        ("fit", "OnnxSequenceType"),
    ),
    Case(
        "no_tensor",
        model(outputs=[sequence("y")], nodes=[node("SequenceConstruct", "x", "y")]),
        ("score", "InvalidCastException"),
        native="pinned",
    ),
    Case("maps", zipmap(classlabels_strings=["b", "a", "c"])),
    Case("maps", zipmap(classlabels_int64s=[7, 5, 6])),
    Case("nameless_shape", model([tensor("x", FLOAT, None)]), ("load", "NullReferenceException"), stays=True),
    Case("nameless_shape", model(outputs=[tensor("y", FLOAT, None)]), ("load", "NullReferenceException")),
    Case(
        "scalar_outputs",
        model(outputs=[tensor("y", FLOAT, [])], nodes=[node("ReduceSum", "x", "y", keepdims=0)]),
        ("score", "Dimensions must contain elements"),
    ),
    Case("narrow_inputs", widened(["N"], 1), ("score", "Invalid rank for input"), column([1.0, 2.0])),
    Case("narrow_inputs", widened(["N"], 1), None, column([[1.0], [2.0]])),
    Case("narrow_inputs", widened([1], 1), ("score", "Invalid rank for input"), column([1.0, 2.0])),
    Case(
        "narrow_inputs",
        widened(["N", 1, 1], 1),
        ("score", "Invalid rank for input"),
        column([1.0, 2.0]),
        native="current",
    ),
    Case("empty_dims", model([tensor("x", FLOAT, [None, 3])]), ("load", "ArgumentOutOfRangeException")),
    Case("empty_dims", model(outputs=[tensor("y", FLOAT, ["N", None])]), ("load", "ArgumentOutOfRangeException")),
    Case("nameless_dims", model([tensor("x", FLOAT, [-1, 3])])),
    Case("zero_dims", model([tensor("x", FLOAT, [0, 3])]), ("score", "Got invalid dimensions"), native="pinned"),
    Case(
        "huge_dims",
        model(outputs=[tensor("y", FLOAT, ["N", 2**31])]),
        ("load", "ArgumentOutOfRangeException"),
        native="pinned",
    ),
    Case(
        "any_unknown_dim",
        model([tensor("x", FLOAT, ["N", "K"])]),
        ("score", "must match product of dimensions (1)"),
    ),
    Case(
        "fixed_batch",
        model([tensor("x", FLOAT, [2, 3])], [tensor("y", FLOAT, [2, 3])]),
        None,
        column([[1.0, 2, 3, 4, 5, 6]]),
    ),
    Case("unknown_output_dims", model(outputs=[tensor("y", FLOAT, ["N", "K"])])),
    Case(
        "lost_columns",
        model(
            outputs=[tensor("y"), tensor("y.output")], nodes=[node("Neg", "x", "y"), node("Abs", "x", "y.output")]
        ),
    ),
    Case(
        "lost_columns",
        model(outputs=[tensor(".output")], nodes=[node("Neg", "x", ".output")]),
        ("fit", "Value cannot be null"),
    ),
    Case("stripped_names", model(outputs=[tensor("y.output")], nodes=[node("Neg", "x", "y.output")])),
    Case(
        "hidden_inputs",
        model([tensor("x"), tensor("mlnet.a.unusedInput")], nodes=[node("Add", "x mlnet.a.unusedInput", "y")]),
        ("score", "OnnxRuntimeException"),
        native="pinned",
    ),
    Case(
        "hidden_outputs",
        model(
            outputs=[tensor("y"), tensor("mlnet.a.unusedOutput")],
            nodes=[node("Neg", "x", "y"), node("Abs", "x", "mlnet.a.unusedOutput")],
        ),
    ),
    Case(
        "unread_inputs",
        model([tensor("x"), tensor("u", FLOAT, ["N", 1])]),
        None,
        {**X, **column([1.0, 2.0], "u")},
        repaired_columns=X,
    ),
    Case(
        "unread_inputs",
        model([tensor("x"), tensor("u", FLOAT, ["N", 1])]),
        ("fit", "Could not find input column"),
        repaired_columns=X,
    ),
    Case("wrong_slots", slots(2)),
    Case("high_opset", model(opset=12), ("load", "domain_version of 12")),
    Case(
        "high_opset", model(nodes=[node("Softmax", "x", "y", axis=1)], opset=13), ("load", "OnnxRuntimeException")
    ),
    Case("high_opset", model(nodes=[node("Relu", "x", "y")], opset=14), ("load", "OnnxRuntimeException")),
    Case(
        "high_opset",
        model(nodes=[node("HardSwish", "x", "y")], opset=14),
        ("load", "OnnxRuntimeException"),
        stays=True,
    ),
    Case("high_opset", model(opset=24, ir_version=10), ("load", "OnnxRuntimeException"), native="pinned"),
    Case(
        "high_ml_opset",
        model(nodes=[node("Binarizer", "x", "y", domain="ai.onnx.ml", threshold=2.0)], ml=3),
        ("load", "domain_version of 3"),
    ),
    Case("high_ir", model(ir_version=7), ("load", "Unknown model file format version")),
    Case("high_ir", model(ir_version=12), ("load", "OnnxRuntimeException"), native="pinned"),
    Case(
        "foreign_operators",
        model(nodes=[node("Swap", "x", "y", domain="my.ops")]),
        ("load", "OnnxRuntimeException"),
    ),
    Case("foreign_operators", in_a_function(), ("load", "OnnxRuntimeException"), native="current"),
    Case(
        "foreign_operators",
        model(nodes=[node("NoSuch", "x", "y")]),
        ("load", "OnnxRuntimeException"),
        native="current",
    ),
    Case(
        "huge_dims",
        model([tensor("x", FLOAT, ["N", 65536, 65537])], [tensor("y", FLOAT, ["N", 65536, 65537])]),
        ("load", "overflow"),
        native="current",
    ),
    Case(
        "several_unknown_dims",
        model([tensor("x", FLOAT, ["N", "K", "L"])], [tensor("y", FLOAT, ["N", "K", "L"])]),
        ("fit", "Only 1 unknown dimension"),
        native="current",
    ),
    Case(
        "one_unknown_dim",
        model([tensor("x", FLOAT, ["N", "K"])], [tensor("y", FLOAT, ["N", "K"])]),
        None,
        column([[1.0, 2.0], [3.0, 4.0, 5.0]]),
        native="current",
    ),
    Case(
        "one_unknown_dim",
        model([tensor("x", FLOAT, ["N", "K"])], [tensor("y", FLOAT, ["N", "K"])]),
        ("score", "must match product of dimensions"),
        column(ROWS),
        native="current",
    ),
    Case(
        "sequences",
        model(
            outputs=[tensor("y"), sequence("s")],
            nodes=[node("Neg", "x", "y"), node("SequenceConstruct", "x", "s")],
        ),
        native="current",
        options={"outputs": ["y"]},
    ),
    Case(
        "no_tensor",
        model(
            outputs=[
                tensor("y"),
                helper.make_value_info(
                    "s", helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
                ),
            ],
            nodes=[node("Neg", "x", "y"), node("SequenceConstruct", "x", "s")],
        ),
        ("load", "GenericMethodDefinition"),
        native="current",
    ),
    Case("other_shapes", model(nodes=[node("Concat", "x x", "y", axis=1)]), native="current"),
    Case(
        "other_types",
        model(nodes=[node("Cast", "x", "y", to=INT64)]),
        ("load", "does not match"),
        native="current",
    ),
    Case("locales", NORMALIZED, ("load", "locale") if lacks("en_US.UTF-8") else None, TEXTS, native="current"),
    Case("low_opset", model(opset=6, ml=1), native="current"),
    Case(
        "high_contrib_opset", imported(("", 17), ("com.microsoft", 2)), ("load", "com.microsoft"), native="current"
    ),
    Case("mixed_opsets", imported(("", 17), ("ai.onnx", 13)), native="current"),
    Case("no_ir", without_ir(), ("load", "Missing model IR version"), native="current"),
    Case("ambiguous_names", model([tensor("x"), tensor("x")]), ("load", "Duplicate"), native="current"),
    Case(
        "ambiguous_names",
        model(nodes=[node("Mul", "x w", "y")], weights=[weight(FLOAT), weight(FLOAT)]),
        native="current",
    ),
    Case(
        "nothing_to_see",
        model([], [tensor("y", FLOAT, [3])], [node("Identity", "w", "y")], [weight(FLOAT)]),
        ("fit", "cannot be null or empty"),
        native="current",
        options={"zip": True},
    ),
]

IDS = [f"{case.rule}-{number}" for number, case in enumerate(CASES)]
BY_CHECK = {rule.check.__name__: rule for rule in RULES}


@dataclass
class Answered:
    """A case with the files of its models, what the linter did, and what ML.NET says."""

    case: Case
    path: Path
    found: set[str]
    errors: set[str]
    repaired: onnx.ModelProto | None
    answer: dict[str, Any] = field(default_factory=dict)
    repaired_answer: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def answered(mlnet, tmp_path_factory, request) -> dict[str, Answered]:
    """All cases, scored in one process for each native library."""
    folder = tmp_path_factory.mktemp("rules")
    found = {
        name: _linted(case, folder / f"{number}.onnx")
        for number, (name, case) in enumerate(zip(IDS, CASES, strict=True))
    }
    for native, score in (
        *((native, partial(mlnet, native=native)) for native in ("bundled", "pinned")),
        *([("current", request.getfixturevalue("mlnet5"))] if DOTNET else []),
    ):
        jobs = [
            (entry, kind)
            for entry in found.values()
            if entry.case.native == native
            for kind in ("answer", "repaired_answer")
        ]
        jobs = [(entry, kind) for entry, kind in jobs if kind == "answer" or entry.repaired is not None]
        for (entry, kind), result in zip(jobs, score([_job(*pair) for pair in jobs]), strict=True):
            setattr(entry, kind, result)
    return found


def _linted(case: Case, path: Path) -> Answered:
    if case.external:
        onnx.save_model(
            case.broken, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0
        )
    else:
        path.write_bytes(case.broken.SerializeToString())
    release = find_release(RELEASES[case.native])
    rules = rules_of(Deployment(release, path.parent))
    proto = OnnxModel.read(path).proto
    findings = list(rules.find(proto))
    levels = {rule.id: rule.level for rule in rules.rules}
    repaired = None
    if BY_CHECK[case.rule].fix is not None:
        repaired = proto
        rules.repair(repaired)
        path.with_suffix(".repaired.onnx").write_bytes(repaired.SerializeToString())
    found = {finding.rule for finding in findings}
    return Answered(case, path, found, {rule for rule in found if levels[rule] == "error"}, repaired)


def _job(entry: Answered, kind: str) -> dict[str, Any]:
    path, columns = entry.path, entry.case.columns
    if kind == "repaired_answer":
        path, columns = path.with_suffix(".repaired.onnx"), entry.case.repaired_columns or columns
    return {"model": path, "columns": columns, **entry.case.options}


def test_every_rule_that_is_measured_has_a_model_that_breaks_it():
    measured = {rule.check.__name__ for rule in RULES if rule.measured}
    assert measured - {"too_large"} == {case.rule for case in CASES}
    assert len({rule.id for rule in RULES}) == len(RULES)


def _skip_without_dotnet(entry: Answered) -> None:
    if entry.case.native == "current" and not DOTNET:
        pytest.skip("needs the .NET SDK: dotnet is not on the PATH")


@pytest.mark.parametrize("name", IDS)
def test_mlnet_answers_as_the_rule_says(answered, name):
    entry = answered[name]
    assert BY_CHECK[entry.case.rule].id in entry.found
    _skip_without_dotnet(entry)
    error = entry.answer.get("error")
    if entry.case.refused is None:
        assert error is None, error
        return
    stage, message = entry.case.refused
    assert error is not None, entry.answer
    assert error["stage"] == stage
    assert message in f"{error['type']} {error['message']}"
    alone = entry.case.columns is X and not entry.case.options and entry.case.repaired_columns is None
    assert entry.errors or not alone, "a model that ML.NET refuses must be an error of the linter's"


@pytest.mark.parametrize("name", [name for name, case in zip(IDS, CASES, strict=True) if BY_CHECK[case.rule].fix])
def test_the_repaired_model_says_the_same_in_mlnet(answered, name):
    entry = answered[name]
    case = entry.case
    release = find_release(RELEASES[case.native])
    left = {finding.rule for finding in rules_of(Deployment(release)).find(entry.repaired)}
    if case.stays:
        assert BY_CHECK[case.rule].id in left
        return
    assert BY_CHECK[case.rule].id not in left
    _skip_without_dotnet(entry)
    assert "error" not in entry.repaired_answer, entry.repaired_answer
    if not case.runs:
        assert [output["values"] for output in entry.repaired_answer["columns"].values()] == [
            (-np.array(ROWS)).tolist()
        ]
        return
    source = OnnxSource(OnnxModel.read(entry.path))
    columns = case.repaired_columns or case.columns
    for row in range(len(next(iter(columns.values()))["values"])):
        feeds = {spec.name: _row(spec, columns, row) for spec in source.inputs}
        expected = source.predict(feeds)
        got = entry.repaired_answer["columns"].values()
        for value, output in zip(expected.values(), got, strict=True):
            np.testing.assert_allclose(output["values"][row], np.asarray(value, np.float64).reshape(-1), rtol=1e-6)


def _row(spec, columns: dict[str, Any], row: int) -> np.ndarray:
    shape = [dim if isinstance(dim, int) else 1 for dim in spec.shape]
    values = columns[spec.name]["values"][row] if spec.name in columns else np.zeros(shape)
    return np.asarray(values, dtype=spec.dtype).reshape(shape)


def test_outputs_that_are_not_used_are_read_too(mlnet, tmp_path):
    nodes = [node("Neg", "x", "z"), node("Cast", "x", "y", to=TensorProto.FLOAT16)]
    path = tmp_path / "two.onnx"
    onnx.save(model(outputs=[tensor("y", TensorProto.FLOAT16), tensor("z")], nodes=nodes), path)
    [answer] = mlnet([{"model": path, "columns": X, "outputs": ["z"]}], "bundled")
    assert "Unsupported ONNX scalar type: Float16" in answer["error"]["message"]


def test_mlnet_5_refuses_what_the_linter_calls_an_error_and_takes_the_rest(mlnet5, tmp_path):
    """All models, those that break an older release's rules among them, with the rules of ML.NET 5."""
    release = find_release("5.0.1")
    cases, jobs, errors = [], [], []
    for number, case in enumerate(CASES):
        if case.external:
            continue
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(case.broken.SerializeToString())
        rules = rules_of(Deployment(release, tmp_path))
        levels = {rule.id: rule.level for rule in rules.rules}
        found = {levels[finding.rule] for finding in rules.find(OnnxModel.read(path).proto)}
        if case.refused and found - {"note"} and "error" not in found:
            continue  # a warning, with columns that do not fit it
        cases.append(IDS[number])
        jobs.append({"model": path, "columns": case.columns, **case.options})
        errors.append("error" in found)
    answers = mlnet5(jobs)
    for name, broken, answer, case in zip(
        cases, errors, answers, (CASES[IDS.index(name)] for name in cases), strict=True
    ):
        if broken and case.refused:
            assert "error" in answer, name
        elif not broken:
            assert "error" not in answer, (name, answer)
