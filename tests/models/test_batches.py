"""Which axis counts rows."""

import numpy as np
import pytest

from onnxtool.errors import DataError
from onnxtool.models.rows.batches import Batching
from onnxtool.models.rows.data import fit_data
from onnxtool.models.rows.inputs import make_inputs
from onnxtool.models.signature import TensorSpec


def specs(*texts):
    return tuple(map(TensorSpec.parse, texts))


@pytest.mark.parametrize(
    ("inputs", "axes", "size"),
    [
        (["x:float32[batch,8]", "s:int64[]"], {"x": 0}, None),
        (["x:float32[batch,sequence,8]", "h:float32[2,batch,8]"], {"x": 0, "h": 1}, None),
        (["x:float32[batch,sequence,8]", "mask:bool[sequence,sequence]"], {"x": 0}, None),
        (["x:float32[n,8]", "anchors:float32[4,2]"], {"x": 0}, None),
        (["x:float32[1,sequence,8]"], {"x": 0}, 1),
        (["x:float32[4,8]", "y:float32[4,2]"], {"x": 0, "y": 0}, 4),
        (["frame:float32[1,1,32]", "state:float32[2,1,16]"], {"frame": 0, "state": 0}, 1),
        (["x:float32[nodes,8]", "edges:int64[2,edges]"], {}, 1),
        (["ids:int64[tokens]", "offsets:int64[batch]"], {}, 1),
        (["nodes:float32[n,16]", "adjacent:float32[n,n]"], {}, 1),
        ([], {}, 1),
    ],
)
def test_what_counts_rows(inputs, axes, size):
    found = Batching.of(specs(*inputs))
    assert (dict(found.axes), found.size) == (axes, size)
    made = make_inputs(specs(*inputs), 5, 0)
    assert found.count(made) == (5 if size is None else size)


def test_rows_are_cut_along_their_own_axis():
    inputs = specs("x:float32[batch,3]", "h:float32[2,batch,4]", "scale:float32[1]")
    batching, made = Batching.of(inputs), make_inputs(inputs, 5, 0)
    part = batching.rows(made, 3, 5, 4)
    assert np.array_equal(part["x"], made["x"][[3, 4, 4, 4]])
    assert np.array_equal(part["h"], made["h"][:, [3, 4, 4, 4]])
    assert part["scale"] is made["scale"]
    joined = batching.join([batching.rows(made, 0, 2), batching.rows(made, 2, 5)])
    assert all(np.array_equal(joined[name], made[name]) for name in made)


def test_first_sizes_that_differ_are_one_row_together():
    inputs = specs("image:float32[1,4]", "boxes:float32[6,4]")
    data = {"image": np.arange(12.0).reshape(3, 4), "boxes": np.arange(72.0).reshape(18, 4)}
    tensors, _ = fit_data(data, inputs, "rows.npz")
    batching = Batching.of(inputs)
    assert batching.count(tensors) == 3
    part = batching.take(tensors, np.array([2, 0]))
    assert np.array_equal(part["boxes"], tensors["boxes"][[12, 13, 14, 15, 16, 17, 0, 1, 2, 3, 4, 5]])
    with pytest.raises(DataError, match="differ in their number of rows"):
        fit_data(data | {"image": data["image"][:2]}, inputs, "rows.npz")


def test_a_first_size_of_0_is_no_batch():
    inputs = [TensorSpec("image", "float32", (1, 4)), TensorSpec("boxes", "float32", (0, 4))]
    batching = Batching.of(inputs)
    tensors = {"image": np.zeros((1, 4), np.float32), "boxes": np.zeros((0, 4), np.float32)}
    assert batching.count(tensors) == 1
    assert batching.rows(tensors, 0, 1)["boxes"].shape == (0, 4)
