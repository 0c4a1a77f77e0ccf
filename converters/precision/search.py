"""Search for the nodes that must stay in float32: each is measured, within a bound on their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

MOST_GROUPS = 32
"""So many nodes are tried alone; of more, neighbours are taken together."""


class Measured(Protocol):
    """The result with some nodes kept in float32."""

    @property
    def error(self) -> float:
        """The error of the outputs."""

    @property
    def passed(self) -> bool:
        """Whether that is near enough."""


M = TypeVar("M", bound=Measured)


class Repair(NamedTuple, Generic[M]):
    """The outcome of a search.

    Attributes:
        kept: Nodes that stay in float32, or None where the model passes with none but all of them.
        sensitivity: For each group of nodes, the error with these alone in low precision.
        tried: What was measured on the way to the number of nodes.
    """

    kept: frozenset[str] | None
    sensitivity: dict[tuple[str, ...], float]
    tried: list[M]


def repair(nodes: Sequence[str], measure: Callable[[frozenset[str]], M], already: frozenset[str]) -> Repair[M]:
    """Keep the nodes that hurt most in float32, as few as let the model pass.

    Each group of nodes is made less precise alone, which ranks them; the worst 1, 2, 4, ... are kept until the model
    passes, and the number is halved back. That is at most 32 measurements for the ranks and 10 for the number. Harm
    does not add up exactly, so that the number is the least along the ranks, not the least of all.

    Args:
        nodes: All that could be less precise, in the order of the graph.
        measure: Measures the model with these nodes kept.
        already: Nodes that are kept in any case.
    """
    size = -(-len(nodes) // MOST_GROUPS)
    groups = [tuple(nodes[start : start + size]) for start in range(0, len(nodes), size)]
    everything = already.union(nodes)
    sensitivity = {group: measure((everything - {*group}) | already).error for group in groups}
    ranked = sorted(groups, key=lambda group: -sensitivity[group])
    tried: list[M] = []

    def passes(count: int) -> bool:
        tried.append(measure(already.union(*ranked[:count])))
        return tried[-1].passed

    most = len(ranked) - 1
    failing, passing = 0, 1
    while passing < most and not passes(passing):
        failing, passing = passing, 2 * passing
    if passing >= most and not passes(passing := most):
        return Repair(None, sensitivity, tried)
    while passing - failing > 1:
        middle = (passing + failing) // 2
        failing, passing = (failing, middle) if passes(middle) else (middle, passing)
    return Repair(already.union(*ranked[:passing]), sensitivity, tried)
