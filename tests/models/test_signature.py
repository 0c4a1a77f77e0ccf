import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxtool.errors import UsageError
from onnxtool.models.signature import DTYPES, TensorSpec, dtype_name, numpy_dtype

DIMS = st.one_of(st.integers(1, 10_000), st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True))
NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)


@given(NAMES, st.sampled_from(DTYPES), st.lists(DIMS, max_size=5))
def test_a_spec_reads_its_own_text(name, dtype, dims):
    spec = TensorSpec(name, dtype, tuple(dims))
    assert TensorSpec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    "text", ["", "x", "x:float32", "x:float99[1]", "x:float32[0]", "x:float32[1,,2]", "x:float32[-1]"]
)
def test_a_wrong_spec_says_what_one_looks_like(text):
    with pytest.raises(UsageError, match=r"float32|dimension"):
        TensorSpec.parse(text)


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_has_an_array(name):
    array = np.zeros(2, numpy_dtype(name)) if name != "string" else np.array(["a"], dtype=object)
    assert dtype_name(array) == name
