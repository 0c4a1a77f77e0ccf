"""The batches that a cell runs in turn: all rows, in random order, as loadgen draws from its sample library.

A model may take longer for some rows than for others: detection, decoding, loops over text. One batch again and again
would measure that batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxtool.models.rows.batches import Batching
from onnxtool.models.signature import Tensors, TensorSpec

MOST_BATCHES = 10_000
MOST_BYTES = 2**28
"""What all batches of a cell hold together; there is one in any case."""


def batches_of(rows: Tensors, specs: Sequence[TensorSpec], batch: int, seed: int) -> list[Tensors]:
    """Cut rows into batches.

    Args:
        rows: At least one row of each input.
        specs: The model's inputs; `Batching` finds where their rows lie.
        batch: Rows in a batch, unless the model fixes it.
        seed: Of the order of the rows, which is their own where they make one batch.

    Returns:
        As many batches as it takes for each row to be in one, within `MOST_BATCHES` and `MOST_BYTES`. Rows are
        repeated to fill the last one.
    """
    batching = Batching.of(specs)
    tensors = {spec.name: rows[spec.name] for spec in specs}
    size, count = batching.size or batch, max(batching.count(tensors), 1)
    row_bytes = sum(tensors[name].nbytes for name in batching.axes) // count
    number = max(1, min(math.ceil(count / size), MOST_BATCHES, MOST_BYTES // max(row_bytes * size, 1)))
    order = np.random.default_rng(seed).permutation(count) if number > 1 else np.arange(count)
    places = order[np.arange(number * size) % count]
    return [batching.take(tensors, part) for part in np.split(places, number)]


def batch_of(inputs: Tensors, specs: Sequence[TensorSpec], batch: int) -> Tensors:
    """Repeat or cut the rows of each input to `batch`, or to the number that the model fixes."""
    batching = Batching.of(specs)
    places = np.arange(batching.size or batch) % max(batching.count(inputs), 1)
    return batching.take({spec.name: inputs[spec.name] for spec in specs}, places)


def stacked(batches: Sequence[Tensors]) -> Tensors:
    """Batches of equal shapes as one array an input, with a first axis that counts them."""
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def unstacked(tensors: Tensors) -> list[Tensors]:
    """What `stacked` was given."""
    number = len(next(iter(tensors.values()), ())) if tensors else 1
    return [{name: array[place, ...] for name, array in tensors.items()} for place in range(number)]


def turned(batches: Sequence[Tensors], runs: int) -> list[Tensors]:
    """The batches in the order in which they come after a number of runs."""
    start = runs % len(batches)
    return [*batches[start:], *batches[:start]]
