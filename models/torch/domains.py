"""The values that the inputs of a PyTorch model may have: tokens of its embeddings, and masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from onnxtool.errors import SourceError
from onnxtool.models.rows.domain import Domain
from onnxtool.models.rows.inputs import make_inputs

_ROWS = 2


def torch_domains(source: Any) -> dict[str, Domain]:
    """Whole numbers stay below the vocabulary of the embedding that looks them up; masks are mostly open.

    Where an input does not reach an embedding as it is, the smallest vocabulary holds.

    Args:
        source: A `TorchSource`.
    """
    smallest = min(_vocabularies(source), default=None)
    known = {} if smallest is None else _vocabulary_of_each(source, smallest)
    domains: dict[str, Domain] = {}
    for spec in source.inputs:
        whole = "int" in spec.dtype
        if "mask" in spec.name and (whole or spec.dtype == "bool"):
            # A row that is masked wholly is NaN in some models. A padding mask is True where it masks.
            shows, hides = (False, True) if "pad" in spec.name else (True, False)
            domains[spec.name] = Domain(choices=(shows, shows, shows, hides))
        elif whole and smallest is not None:
            domains[spec.name] = Domain(high=known.get(spec.name, smallest))
    return domains


def _vocabularies(source: Any) -> Iterator[int]:
    """Number of rows of every embedding."""
    if source.exported:
        yield from (size for _, size in _lookups(source.model.graph))
    else:
        yield from (int(module.weight.shape[0]) for module in _embeddings(source.module))


def _lookups(graph: Any) -> Iterator[tuple[Any, int]]:
    """The input that each embedding of an exported program looks up, and its number of rows."""
    for node in graph.nodes:
        if node.op == "call_function" and str(node.target).startswith("aten.embedding"):
            yield node.args[1], int(node.args[0].meta["val"].shape[0])


def _embeddings(module: Any) -> Iterator[Any]:
    for part in module.modules():
        if getattr(part, "original_name", type(part).__name__) in {"Embedding", "EmbeddingBag"}:
            yield part


def _vocabulary_of_each(source: Any, smallest: int) -> dict[str, int]:
    """The vocabulary of each input that an embedding looks up, by the input's name.

    A module is run once, on tokens that any of its embeddings has, to see which arrive where.
    """
    if source.exported:
        names = dict(
            zip(source.model.graph_signature.user_inputs, (spec.name for spec in source.inputs), strict=True)
        )
        pairs = [(names.get(index.name), size) for index, size in _lookups(source.model.graph)]
    else:
        pairs = _watched(source, smallest)
    found: dict[str, int] = {}
    for name, size in pairs:
        if name is not None:
            found[name] = min(size, found.get(name, size))
    return found


def _watched(source: Any, smallest: int) -> list[tuple[str | None, int]]:
    import torch

    if isinstance(source.module, torch.jit.ScriptModule):  # which cannot be watched
        return []
    whole = {spec.name: Domain(high=smallest) for spec in source.inputs if "int" in spec.dtype}
    arrays = make_inputs(source.inputs, _ROWS, 0, whole)
    seen: list[tuple[str | None, int]] = []

    def watching(size: int) -> Callable[..., None]:
        def watch(_: Any, given: tuple[Any, ...]) -> None:
            if given:
                index = given[0].cpu().numpy().ravel()
                same = (name for name in whole if np.array_equal(index, arrays[name].ravel()))
                seen.append((next(same, None), size))

        return watch

    hooks = [
        part.register_forward_pre_hook(watching(int(part.weight.shape[0]))) for part in _embeddings(source.module)
    ]
    try:
        source.run(arrays)
    except SourceError:  # it takes other values
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return seen
