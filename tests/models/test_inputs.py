import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxtool.models.rows.domain import Domain
from onnxtool.models.rows.inputs import graph_domains, make_inputs, sensible_rows
from onnxtool.models.signature import DTYPES, TensorSpec, dtype_name

SPECS = tuple(TensorSpec(dtype, dtype, ("batch", 3)) for dtype in DTYPES)


def test_inputs_have_the_signature_and_repeat_with_the_seed():
    first, again, other = (make_inputs(SPECS, 64, seed) for seed in (7, 7, 8))
    for spec in SPECS:
        assert dtype_name(first[spec.name]) == spec.dtype
        assert first[spec.name].shape == (64, 3)
        np.testing.assert_array_equal(first[spec.name], again[spec.name])
    assert not np.array_equal(first["float32"], other["float32"])


def test_one_dimension_has_one_size_wherever_it_stands():
    specs = (
        TensorSpec("ids", "int64", ("batch", "time")),
        TensorSpec("mask", "bool", ("batch", "time")),
        TensorSpec("image", "float32", ("batch", 3, "height", "width")),
        TensorSpec("fixed", "float32", (5, 2)),
    )
    tensors = make_inputs(specs, 4, 0)
    assert tensors["ids"].shape == tensors["mask"].shape
    assert tensors["image"].shape == (4, 3, 32, 32)
    assert tensors["fixed"].shape == (5, 2)


def test_domains_are_kept():
    domains = {
        "string": Domain(choices=("Oslo", "Rome")),
        "int64": Domain(low=5, high=9),
        "float32": Domain(center=np.array([0.0, 1e4, -5.0]), spread=np.array([1.0, 10.0, 0.1])),
        "float64": Domain(landmarks=(np.array([0.25]), np.array([]), np.array([7.0, 8.0]))),
    }
    tensors = make_inputs(SPECS, 500, 0, domains)
    assert set(tensors["string"].flat) == {"Oslo", "Rome"}
    assert (tensors["int64"].min(), tensors["int64"].max()) == (5, 8)
    np.testing.assert_allclose(tensors["float32"].mean(axis=0), [0, 1e4, -5], atol=2)
    assert (tensors["float64"][:, 0] == 0.25).any()
    assert (tensors["float64"][:, 2] == 7.0).any()


def test_float64_rows_have_decimals_as_people_write_them():
    domain = Domain(center=np.array([20.0, 0.5]), spread=np.array([10.0, 0.1]))
    price, share = domain.sample("float64", (400, 2), np.random.default_rng(0)).T
    assert (price == np.round(price, 2)).mean() > 0.4
    assert (share == np.round(share, 4)).mean() > 0.4
    assert (price.astype(np.float32) != price).mean() > 0.5
    assert (price != np.round(price, 6)).mean() > 0.4  # and the others are as exact as float64 is


def test_a_column_whose_thresholds_are_those_of_whole_numbers_is_made_of_whole_numbers():
    marks = np.array([70_000_000.5, 70_000_102.0, 70_000_202.5])
    domain = Domain(center=70_000_100.0, spread=80.0, landmarks=(marks,))
    (ids,) = domain.sample("float64", (400, 1), np.random.default_rng(0)).T
    assert (ids == np.round(ids)).mean() > 0.8
    assert (ids.astype(np.float32) != ids).any()


def test_texts_are_made_of_the_vocabulary():
    texts = Domain(choices=("good", "bad"), words=4).sample("string", (50, 1), np.random.default_rng(0))
    words = {word for text in texts.flat for word in text.split()}
    assert words == {"good", "bad"}
    assert max(len(text.split()) for text in texts.flat) == 4


def test_big_inputs_get_fewer_rows():
    assert sensible_rows([TensorSpec("x", "float32", ("batch", 20))]) == 1024
    assert sensible_rows([TensorSpec("x", "float32", ("batch", 3, 224, 224))]) == 32


def test_the_graph_gives_vocabulary_and_categories():
    table = numpy_helper.from_array(np.zeros((17, 4), np.float32), "table")
    nodes = [
        helper.make_node("Cast", ["ids"], ["cast"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "cast"], ["embedded"]),
        helper.make_node(
            "LabelEncoder", ["city"], ["code"], domain="ai.onnx.ml", keys_strings=["a", "b"], values_int64s=[0, 1]
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT32, ["batch", 3]),
            helper.make_tensor_value_info("city", TensorProto.STRING, ["batch", 1]),
        ],
        [helper.make_tensor_value_info("embedded", TensorProto.FLOAT, ["batch", 3, 4])],
        [table],
    )
    domains = graph_domains(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert domains["ids"].high == 17
    assert domains["city"].choices == ("a", "b", "never seen")  # what is not in a table has a default


def test_columns_are_followed_through_concatenation():
    def column(name):
        return helper.make_tensor_value_info(name, TensorProto.STRING, ["batch", 1])

    def encode(name, *categories):
        return helper.make_node(
            "OneHotEncoder", [name], [f"{name}_code"], domain="ai.onnx.ml", cats_strings=categories, zeros=0
        )

    def pick(index, name):
        return helper.make_node("ArrayFeatureExtractor", ["all", index], [name], domain="ai.onnx.ml")

    nodes = [
        helper.make_node("Concat", ["a", "b", "c"], ["all"], axis=1),
        pick("second", "two"),
        encode("two", "x", "y"),
        pick("others", "rest"),
        encode("rest", "u", "v"),
    ]
    indices = [numpy_helper.from_array(np.array(i), n) for n, i in (("second", [1]), ("others", [0, 2]))]
    outputs = [helper.make_tensor_value_info("two_code", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", [column(name) for name in "abc"], outputs, indices)
    domains = graph_domains(helper.make_model(graph))
    assert {name: domain.choices for name, domain in domains.items()} == {
        "a": ("u", "v"),
        "b": ("x", "y"),
        "c": ("u", "v"),
    }


@pytest.mark.parametrize("seed", range(5))
def test_no_value_leaves_the_vocabulary(seed):
    tensors = make_inputs([TensorSpec("ids", "int64", ("batch", "time"))], 100, seed, {"ids": Domain(high=3)})
    assert tensors["ids"].max() < 3
    assert tensors["ids"].min() >= 0
