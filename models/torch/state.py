"""What running a module may change of it, kept so that it can be compared and put back.

Evaluation is not always without effects: forward counts its calls in a buffer, keeps a cache, draws random numbers,
or switches itself to another kernel for short rows, as BigBird does for good.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

_LARGE = 2**16  # elements from which a tensor's version counter is compared instead of its values
_MOST_BYTES = 2**28  # of parameters that are copied, so that a change can be undone
_DEPTH = 4  # of objects and containers in each other


@dataclass(slots=True)
class _Held:
    """A value as it was.

    Attributes:
        value: The object itself.
        content: A copy of what is in it; None where that cannot change, or is too large to be copied.
        version: PyTorch's counter of changes in place, of a tensor.
    """

    value: Any
    content: Any = None
    version: int | None = None


class ModuleState:
    """Parameters, buffers, submodules and attributes of a module and its parts, and the state of random numbers.

    Args:
        module: The module, as it is now.
    """

    def __init__(self, module: Any) -> None:
        import torch

        self.module = module
        weights = sum(weight.numel() * weight.element_size() for weight in module.parameters())
        self._copies = weights <= _MOST_BYTES
        script = isinstance(module, torch.jit.ScriptModule)  # whose attributes are not Python's
        self._parts: list[tuple[str, dict[str, Any], dict[str, _Held]]] = []
        for name, part in module.named_modules():
            entries = {"_buffers": dict(part.named_buffers(recurse=False))} if script else vars(part)
            self._parts.append((name, entries, {key: self._hold(value) for key, value in entries.items()}))
        self._random: tuple[Any, ...] = ()
        self.note_random()

    def changes(self) -> list[str]:
        """Names of everything that changed, except random number generators."""
        return sorted(
            f"{part}.{name}".lstrip(".")
            for part, now, held in self._parts
            for key in now.keys() | held.keys()
            for name in _differing(key, now, held)
        )

    def restore(self) -> list[str]:
        """Put everything back.

        Returns:
            Names of what is still not as it was: large parameters, of which there is no copy.
        """
        for _, now, held in self._parts:
            for key in [key for key in now if key not in held]:
                del now[key]
            for key, entry in held.items():
                _put_back(entry)
                now[key] = entry.value
        return self.changes()

    def note_random(self) -> None:
        """Remember the state of PyTorch's, NumPy's and Python's random numbers."""
        import torch

        self._random = (
            torch.get_rng_state(),
            np.random.get_state(),
            random.getstate(),
        )

    def restore_random(self) -> None:
        """Have random numbers go on from where they were when `note_random` was called."""
        import torch

        torch.set_rng_state(self._random[0])
        np.random.set_state(self._random[1])
        random.setstate(self._random[2])

    def _hold(self, value: Any, depth: int = 0) -> _Held:
        import torch

        if isinstance(value, torch.Tensor):
            copied = self._copies or not isinstance(value, torch.nn.Parameter)
            content = value.detach().clone() if copied and not value.is_meta else None
            return _Held(value, content, _version(value))
        if isinstance(value, np.ndarray):
            return _Held(value, value.copy())
        if isinstance(value, np.random.Generator):
            return _Held(value, value.bit_generator.state)
        if isinstance(value, torch.Generator):
            return _Held(value, value.get_state())
        if depth == _DEPTH or isinstance(value, torch.nn.Module | type):
            return _Held(value)
        if isinstance(value, dict):
            return _Held(value, {key: self._hold(item, depth + 1) for key, item in value.items()})
        if isinstance(value, list | deque | tuple):
            return _Held(value, [self._hold(item, depth + 1) for item in value])
        if isinstance(value, set):
            return _Held(value, set(value))
        if type(value).__module__.partition(".")[0] != "torch" and type(getattr(value, "__dict__", None)) is dict:
            return _Held(value, self._hold(vars(value), depth + 1))  # an object of the user's, such as a cache
        return _Held(value)


def _differing(key: str, now: dict[str, Any], held: dict[str, _Held]) -> Iterator[str]:
    """Names of what differs in an attribute: of a module's own tables, those of their entries."""
    if key in now and key in held and _same(held[key], now[key]):
        return
    entries = held[key].content if key in held else None
    if key in ("_parameters", "_buffers", "_modules") and key in now and entries is not None:
        for name in now[key].keys() | entries.keys():
            if name not in now[key] or name not in entries or not _same(entries[name], now[key][name]):
                yield name
    else:
        yield key


def _same(held: _Held, now: Any) -> bool:
    import torch

    value, content = held.value, held.content
    if now is not value:
        return isinstance(value, bool | int | float | str | bytes) and repr(now) == repr(value)
    if isinstance(value, torch.Tensor):
        if held.version == _version(value) and value.numel() > _LARGE:
            return True
        return held.version == _version(value) if content is None else _equal(value, content)
    if content is None:
        return True
    if isinstance(value, np.ndarray):
        return bool(value.shape == content.shape and value.tobytes() == content.tobytes())
    if isinstance(value, np.random.Generator):
        return bool(value.bit_generator.state == content)
    if isinstance(value, torch.Generator):
        return bool(torch.equal(value.get_state(), content))
    if isinstance(value, dict):
        return value.keys() == content.keys() and all(_same(content[key], value[key]) for key in content)
    if isinstance(value, list | deque | tuple):
        return len(value) == len(content) and all(map(_same, content, value))
    if isinstance(value, set):
        return bool(value == content)
    return _same(content, vars(value))


def _put_back(held: _Held) -> None:
    import torch

    value, content = held.value, held.content
    if content is None or _same(held, value):
        return
    if isinstance(value, torch.Tensor):
        with torch.no_grad():
            if value.shape != content.shape:
                value.resize_(content.shape)
            value.copy_(content)
        held.version = _version(value)
    elif isinstance(value, np.ndarray):
        value[...] = content
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = content
    elif isinstance(value, torch.Generator):
        value.set_state(content)
    elif isinstance(value, dict):
        for entry in content.values():
            _put_back(entry)
        value.clear()
        value.update({key: entry.value for key, entry in content.items()})
    elif isinstance(value, list | deque | tuple):
        for entry in content:
            _put_back(entry)
        if not isinstance(value, tuple):
            value.clear()
            value.extend(entry.value for entry in content)
    elif isinstance(value, set):
        value.clear()
        value.update(content)
    else:
        _put_back(content)


def _version(tensor: Any) -> int | None:
    return None if tensor.is_inference() else int(tensor._version)


def _equal(first: Any, second: Any) -> bool:
    """Whether two tensors have equal values; NaN equals NaN."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.is_sparse or first.is_quantized or first.is_meta:
        return True
    first = first.detach()
    return bool(((first == second) | (first.isnan() & second.isnan())).all())
