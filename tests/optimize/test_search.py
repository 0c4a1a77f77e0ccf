"""The search for the nodes that must stay in float32, on harm that is known."""

from typing import NamedTuple

import hypothesis.strategies as st
from hypothesis import given

from onnxtool.converters.precision.search import MOST_GROUPS, repair


class Found(NamedTuple):
    error: float
    passed: bool


def measuring(sensitivity, allowed):
    """Harm that adds up, and the sets of kept nodes that were measured."""
    measured = []

    def measure(kept):
        measured.append(kept)
        error = sum(value for name, value in sensitivity.items() if name not in kept)
        return Found(error, error <= allowed)

    return measure, measured


@given(st.lists(st.integers(0, 100), min_size=2, max_size=MOST_GROUPS), st.integers(0, 500))
def test_as_few_nodes_as_let_it_pass_are_kept(values, allowed):
    sensitivity = {f"n{place}": value for place, value in enumerate(values)}
    measure, measured = measuring(sensitivity, allowed)
    found = repair(list(sensitivity), measure, frozenset())
    assert len(measured) <= len(sensitivity) + 2 * 6
    worst_first = sorted(values, reverse=True)
    least = next((n for n in range(1, len(values)) if sum(worst_first[n:]) <= allowed), None)
    if least is None:
        assert found.kept is None
    else:
        assert len(found.kept) == least
        assert sum(sensitivity[name] for name in sensitivity if name not in found.kept) <= allowed
    assert {name: error for (name,), error in found.sensitivity.items()} == sensitivity


def test_what_is_kept_already_stays_kept_and_is_not_measured():
    measure, measured = measuring({"a": 1, "b": 2, "c": 9}, 1)
    found = repair(["a", "b"], measure, frozenset({"c"}))
    assert found.kept == {"b", "c"}
    assert all("c" in kept for kept in measured)
    assert list(found.sensitivity) == [("a",), ("b",)]


def test_neighbours_of_a_large_graph_are_taken_together():
    names = [f"n{place}" for place in range(1000)]
    sensitivity = dict.fromkeys(names, 0) | {"n500": 50, "n900": 60}
    measure, measured = measuring(sensitivity, 40)
    found = repair(names, measure, frozenset())
    assert {"n500", "n900"} <= found.kept
    assert len(found.kept) == 2 * 32
    assert len(found.sensitivity) <= MOST_GROUPS
    assert len(measured) <= MOST_GROUPS + 10
