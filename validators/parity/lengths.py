"""Sizes of dynamic dimensions that a model takes, where its signature says nothing of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnxtool.models.rows.domain import Domain
from onnxtool.models.rows.inputs import make_inputs, sizes_of
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import SourceModel

_LONGER = (40, 128, 512, 2048, 8192, 32768)
"""Sizes after the default: an audio model needs some thousands of samples."""


def workable_sizes(
    source: SourceModel, specs: Sequence[TensorSpec], domains: Mapping[str, Domain], seed: int
) -> dict[str, int]:
    """The first sizes, all dimensions alike, at which the source runs.

    Args:
        source: The source.
        specs: Its inputs.
        domains: What is known of each input's values.
        seed: Of the rows that are made up.

    Returns:
        The sizes by dimension; nothing where the default sizes work, or none does.
    """
    made = make_inputs(specs, 1, seed, domains)
    usual = dict(sizes_of(specs, made))
    meant = {
        name: min(max(size, source.bounds[name][0]), source.bounds[name][1])
        for name, size in usual.items()
        if name in source.bounds
    }
    if any(size != usual[name] for name, size in meant.items()):
        return meant
    names = list(usual)
    if not names or _runs(source, specs, domains, {}, seed):
        return {}
    found = (dict.fromkeys(names, size) for size in _LONGER)
    return next((sizes for sizes in found if _runs(source, specs, domains, sizes, seed)), {})


def _runs(
    source: SourceModel,
    specs: Sequence[TensorSpec],
    domains: Mapping[str, Domain],
    sizes: Mapping[str, int],
    seed: int,
) -> bool:
    try:
        source.answer(make_inputs(specs, 2, seed, domains, sizes))
    except Exception:  # any framework may raise anything
        return False
    return True
