"""For each operator that reads an input there is a wrong copy of it, and `verify` finds it on rows of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxtool
from onnxtool.reports.render import render
from tests.validators.mutants import mutants

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
RNG = np.random.default_rng(0)


def graph(dtype: int, nodes: list[onnx.NodeProto], weights: dict[str, Any], name: str = "x") -> onnx.ModelProto:
    """A graph from one input, [batch, 8], to the output y."""
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info(name, dtype, ["batch", 8])],
            [helper.make_tensor_value_info("y", FLOAT, None)],
            [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 22), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=10,
    )
    return onnx.shape_inference.infer_shapes(model)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    domain = "ai.onnx.ml" if kind in ("LabelEncoder", "CategoryMapper", "OneHotEncoder") else ""
    return helper.make_node(kind, inputs.split(), [output], domain=domain, **attributes)


f4 = np.float32
WORDS = [f"word{place}" for place in range(300)]
GRAPHS = {
    "embedding": graph(INT64, [node("Gather", "table x", "y")], {"table": RNG.normal(size=(500, 3)).astype(f4)}),
    "words": graph(
        STRING,
        [
            node("LabelEncoder", "x", "i", keys_strings=WORDS, values_int64s=range(300), default_int64=-1),
            node("Cast", "i", "y", to=FLOAT),
        ],
        {},
    ),
    "words of both kinds": graph(
        STRING,
        [
            node("CategoryMapper", "x", "i", cats_strings=WORDS[:4], cats_int64s=[3, 4, 5, 6], default_int64=-1),
            node("Cast", "i", "y", to=FLOAT),
        ],
        {},
    ),
    "numbers": graph(
        INT64,
        [
            node("LabelEncoder", "x", "i", keys_int64s=range(100, 400), values_int64s=range(300), default_int64=-1),
            node("Cast", "i", "y", to=FLOAT),
        ],
        {},
    ),
    "one-hot": graph(INT64, [node("OneHotEncoder", "x", "y", cats_int64s=list(range(7, 27)), zeros=1)], {}),
    **{
        f"layer normalisation {epsilon:g}": graph(
            FLOAT,
            [node("LayerNormalization", "x scale", "y", epsilon=epsilon)],
            {"scale": np.ones(8, f4)},
        )
        for epsilon in (1e-3, 1e-5, 1e-6, 1e-12)
    },
    **{
        f"clamp at {bound:g}": graph(
            FLOAT, [node("Clip", "x low high", "y")], {"low": f4(-bound), "high": f4(bound)}
        )
        for bound in (1, 6, 100, 5000)
    },
    "1/x where x is not 0": graph(
        FLOAT,
        [
            node("Equal", "x zero", "e"),
            node("Not", "e", "n"),
            node("Div", "one x", "d"),
            node("Where", "n d zero", "y"),
        ],
        {"zero": f4(0), "one": f4(1)},
    ),
    "log of what is above 0": graph(
        FLOAT,
        [node("Greater", "x zero", "g"), node("Log", "x", "l"), node("Where", "g l zero", "y")],
        {"zero": f4(0)},
    ),
    **{
        f"step at {place:g}": graph(
            FLOAT, [node("Greater", "x c", "g"), node("Cast", "g", "y", to=FLOAT)], {"c": f4(place)}
        )
        for place in (0, 1, -1)
    },
    "imputed": graph(
        FLOAT, [node("IsNaN", "x", "n"), node("Where", "n zero x", "y")], {"zero": f4(0)}
    ),
    "infinity": graph(FLOAT, [node("IsInf", "x", "n"), node("Where", "n zero x", "y")], {"zero": f4(0)}),
    "remainder of ids": graph(
        INT64, [node("Mod", "ids m", "i"), node("Cast", "i", "y", to=FLOAT)], {"m": np.int64(1009)}, "ids"
    ),
    "high half of ids": graph(
        INT64, [node("Div", "ids m", "i"), node("Cast", "i", "y", to=FLOAT)], {"m": np.int64(2**20)}, "ids"
    ),
    **{
        kind: graph(FLOAT, [node(kind, "x", "y")], {})
        for kind in (
            "Relu", "Abs", "Floor", "Round", "Sign", "Ceil", "LeakyRelu", "Elu", "Celu", "Selu", "Mish", "HardSwish",
            "HardSigmoid", "ThresholdedRelu", "Shrink", "Softplus", "Tanh", "Gelu", "Softmax",
        )
    },
    **{
        kind: graph(FLOAT, [node(kind, "x", "i", axis=1), node("Cast", "i", "y", to=FLOAT)], {})
        for kind in ("ArgMax", "ArgMin")
    },
    "greatest": graph(FLOAT, [node("ReduceMax", "x axes", "y")], {"axes": np.array([1])}),
    "sum so far": graph(FLOAT, [node("CumSum", "x axis", "y")], {"axis": np.int64(1)}),
    "at least": graph(FLOAT, [node("Max", "x c", "y")], {"c": f4(-50)}),
    "at most": graph(FLOAT, [node("Min", "x c", "y")], {"c": f4(50)}),
    "two to the power": graph(FLOAT, [node("Pow", "c x", "y")], {"c": f4(2)}),
    "difference": graph(FLOAT, [node("Sub", "c x", "y")], {"c": f4(1)}),
    "joined": graph(FLOAT, [node("Neg", "x", "n"), node("Concat", "x n", "y", axis=1)], {}),
}  # fmt: skip
CASES = [(name, how, model, wrong) for name, model in GRAPHS.items() for how, wrong in mutants(model)]


@pytest.mark.parametrize(
    ("name", "how", "model", "wrong"), CASES, ids=[f"{name}, {how}" for name, how, *_ in CASES]
)
def test_a_mutant_is_found(
    name: str, how: str, model: onnx.ModelProto, wrong: onnx.ModelProto, tmp_path: Path
) -> None:
    onnx.save(model, tmp_path / "right.onnx")
    onnx.save(wrong, tmp_path / "wrong.onnx")
    assert not onnxtool.verify(tmp_path / "wrong.onnx", tmp_path / "right.onnx")


@pytest.mark.parametrize("name", GRAPHS)
def test_a_right_copy_passes_and_a_mutant_exists(name: str, tmp_path: Path) -> None:
    onnx.save(GRAPHS[name], tmp_path / "right.onnx")
    report = onnxtool.verify(tmp_path / "right.onnx", tmp_path / "right.onnx")
    assert report, report.subjects[0].checks
    assert name in {case[0] for case in CASES}


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("kind", ["layer normalisation 1e-12", "1/x where x is not 0", "clamp at 5000"])
def test_a_mutant_of_a_fixed_batch_is_found(kind: str, size: int, tmp_path: Path) -> None:
    paths = tmp_path / "right.onnx", tmp_path / "wrong.onnx"
    wrong = next(wrong for name, _, _, wrong in CASES if name == kind)
    for model, path in zip((GRAPHS[kind], wrong), paths, strict=True):
        fixed = onnx.ModelProto()
        fixed.CopyFrom(model)
        for value in (*fixed.graph.input, *fixed.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = size
        del fixed.graph.value_info[:]
        onnx.save(fixed, path)
    assert onnxtool.verify(paths[0], paths[0])
    assert not onnxtool.verify(paths[1], paths[0])


def test_a_lost_imputer_is_found(tmp_path: Path) -> None:
    onnx.save(GRAPHS["imputed"], tmp_path / "right.onnx")
    onnx.save(graph(FLOAT, [node("Identity", "x", "y")], {}), tmp_path / "wrong.onnx")
    assert not onnxtool.verify(tmp_path / "wrong.onnx", tmp_path / "right.onnx")


def test_infinities_that_nothing_handles_are_told(tmp_path: Path) -> None:
    onnx.save(graph(FLOAT, [node("Relu", "x", "y")], {}), tmp_path / "right.onnx")
    halves = [
        node("Abs", "x", "a"),
        node("Add", "x a", "s"),
        node("Div", "s two", "y"),
    ]  # -infinity + infinity is NaN
    onnx.save(graph(FLOAT, halves, {"two": f4(2)}), tmp_path / "other.onnx")
    report = onnxtool.verify(tmp_path / "other.onnx", tmp_path / "right.onnx")
    assert report
    assert any(
        "With NaN or infinity in an input, the two models differ on" in note
        for note in report.subjects[0].parity.notes
    )


def test_half_precision_inside_is_in_the_verdict(tmp_path: Path) -> None:
    """The graph's own rounding is its tolerance, so that a pass means less than one of float32."""
    weights = {"w": RNG.normal(size=(8, 3)).astype(f4)}
    rounded = [node("Cast", "z", "h", to=TensorProto.FLOAT16), node("Cast", "h", "y", to=FLOAT)]
    onnx.save(graph(FLOAT, [node("MatMul", "x w", "y")], weights), tmp_path / "single.onnx")
    onnx.save(graph(FLOAT, [node("MatMul", "x w", "z"), *rounded], weights), tmp_path / "half.onnx")
    report = onnxtool.verify(tmp_path / "half.onnx", tmp_path / "single.onnx")
    assert report
    assert "The graph computes in float16" in report.subjects[0].checks[0].message
    assert "with the tolerances of float16" in " ".join(render(report, "text").split())
    assert "float16" not in render(onnxtool.verify(tmp_path / "single.onnx", tmp_path / "single.onnx"), "text")
