"""A bounded run of the fuzzer; `make reliability` has the long one."""

import os

import numpy as np
import pytest

from benchmarks.reliability.fuzz import TARGETS, fuzz, mutated
from onnxtool.errors import DataError


@pytest.mark.parametrize("target", ["pickles", "onnx", "data", "reports", "mlflow"])
def test_damaged_files_end_in_success_or_in_our_own_error(target):
    write, read, _ = TARGETS[target]
    result = fuzz(write, read, 150, seed=1)
    assert result["findings"] == []
    assert result["read"] + result["refused"] == 150


def test_an_input_can_be_made_again():
    first, second = (mutated(b"abc" * 50, b"xyz" * 50, np.random.default_rng([0, 7])) for _ in range(2))
    assert first == second != b"abc" * 50


def _any(folder):
    (folder / "file").write_bytes(b"abc" * 50)


def _reader(path):
    content = path.read_bytes()
    if content == b"abc" * 50:
        return
    if len(content) % 3 == 0:
        raise KeyError(len(content))
    if len(content) % 3 == 1:
        os._exit(3)
    raise DataError("as it should")


def test_what_is_no_error_of_ours_is_found():
    result = fuzz(_any, _reader, 30)
    outcomes = {finding["outcome"].partition(":")[0] for finding in result["findings"]}
    assert outcomes == {"KeyError", "the process ended with 3"}
    assert result["refused"] > 0
    assert result["read"] + result["refused"] + len(result["findings"]) == 30
