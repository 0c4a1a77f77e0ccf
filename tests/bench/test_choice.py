"""Which graph is kept, decided on recorded numbers."""

import pytest

from onnxtool.bench.choice import choose
from onnxtool.reports.model import Candidate, Comparison


def compared(batch, low, ratio, high, effect=0.02):
    outcome = "fail" if low > 1 + effect else "pass" if high < 1 + effect else "undecided"
    return Comparison(
        against="plain.onnx",
        method="paired",
        provider="CPUExecutionProvider",
        batch=batch,
        threads=None,
        effect=effect,
        outcome=outcome,
        ratio=ratio,
        low=low,
        high=high,
    )


def candidate(name, nodes, *comparisons, outcome="accepted", reason=""):
    return Candidate(
        name=name, outcome=outcome, reason=reason, nodes=nodes, size_bytes=1000, comparisons=list(comparisons)
    )


PLAIN = candidate("converted graph", 98)


def outcomes(*others):
    return {assessed.name: assessed.outcome for assessed in choose(PLAIN, others)}


def test_a_graph_that_is_slower_at_one_batch_is_refused_though_it_is_faster_at_the_other():
    """Measured: onnxsim makes slices of a small transformer's attention into gathers."""
    onnxsim = candidate("onnxsim", 83, compared(1, 0.846, 0.853, 0.862), compared(64, 1.119, 1.364, 1.64))
    assessed = choose(PLAIN, [onnxsim])
    assert [found.outcome for found in assessed] == ["kept", "refused"]
    assert assessed[1].reason == "Slower: at batch 64 it takes 1.36 times as long (1.12 to 1.64)."
    assert assessed[0].reason == "Nothing that was tried is better."


def test_what_is_not_decided_is_refused():
    assessed = choose(PLAIN, [candidate("onnxslim", 10, compared(1, 0.9, 1.0, 1.1))])
    assert assessed[1].outcome == "refused"
    assert assessed[1].reason.startswith("Not shown to be no slower: at batch 1")


def test_what_could_not_be_measured_is_refused():
    failed = Comparison(
        against="plain.onnx", method="paired", provider="CPUExecutionProvider", batch=1, threads=None, effect=0.02,
        outcome="fail", reason="Its worker was killed.",
    )  # fmt: skip
    assessed = choose(PLAIN, [candidate("onnxsim", 10, failed)])
    assert assessed[1].reason == "Not measured at batch 1: Its worker was killed."
    assert assessed[0].outcome == "kept"


def test_the_fastest_is_kept():
    fast = candidate("onnxsim", 90, compared(1, 0.79, 0.8, 0.81), compared(64, 0.89, 0.9, 0.91))
    small = candidate("onnxslim", 80, compared(1, 0.98, 0.99, 1.0), compared(64, 0.98, 0.99, 1.0))
    assessed = {found.name: found for found in choose(PLAIN, [small, fast])}
    assert assessed["onnxsim"].outcome == "kept"
    assert assessed["onnxsim"].reason == "Faster, with 90 nodes for 98."
    assert assessed["onnxslim"].outcome == assessed["converted graph"].outcome == "accepted"
    assert assessed["converted graph"].reason == "The one that is kept is better."


def test_of_those_that_are_equally_fast_the_smallest_is_kept():
    first = candidate("onnxsim", 83, compared(1, 0.98, 0.99, 1.01))
    second = candidate("onnxslim", 81, compared(1, 0.985, 1.0, 1.015))
    assert outcomes(first, second) == {"converted graph": "accepted", "onnxsim": "accepted", "onnxslim": "kept"}


def test_a_graph_that_is_neither_faster_nor_smaller_replaces_nothing():
    assert outcomes(candidate("onnxsim", 98, compared(1, 0.99, 1.0, 1.01)))["converted graph"] == "kept"


def test_a_graph_that_is_a_little_slower_is_not_kept_for_being_small():
    """Within the smallest effect, yet distinguished from the plain graph."""
    assert outcomes(candidate("onnxsim", 3, compared(1, 1.005, 1.01, 1.015)))["converted graph"] == "kept"


@pytest.mark.parametrize("order", [1, -1])
def test_refused_graphs_keep_their_reason_and_are_not_compared(order):
    refused = Candidate(name="onnxslim", outcome="refused", reason="It fails: no such operator.")
    good = candidate("onnxsim", 50, compared(1, 0.5, 0.6, 0.7))
    assessed = {found.name: found for found in choose(PLAIN, [refused, good][::order])}
    assert assessed["onnxslim"].reason == "It fails: no such operator."
    assert assessed["onnxsim"].outcome == "kept"
    assert sum(found.outcome == "kept" for found in assessed.values()) == 1
