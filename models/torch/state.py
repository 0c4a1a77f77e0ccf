"""The state of a module that a run may change, saved so that it can be compared and restored.

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
class _Saved:
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
        self._seen: set[int] = set()
        script = isinstance(module, torch.jit.ScriptModule)  # whose attributes are not Python's
        self._parts: list[tuple[str, dict[str, Any], dict[str, _Saved]]] = []
        for name, part in module.named_modules():
            entries = {"_buffers": dict(part.named_buffers(recurse=False))} if script else vars(part)
            self._parts.append(
                (name, entries, {key: self._save(value) for key, value in entries.items() if _kept(key)})
            )
        self._random: tuple[Any, ...] = ()
        self.note_random()

    def changes(self) -> list[str]:
        """Names of everything that changed, except random number generators."""
        return sorted(
            f"{part}.{name}".lstrip(".")
            for part, now, saved in self._parts
            for key in filter(_kept, now.keys() | saved.keys())
            for name in _differing(key, now, saved)
        )

    def restore(self) -> list[str]:
        """Put everything back.

        Returns:
            Names of what is still not as it was: large parameters, of which there is no copy.
        """
        for _, now, saved in self._parts:
            for key in [key for key in now if _kept(key) and key not in saved]:
                del now[key]
            for key, entry in saved.items():
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
        """Restore the state of random numbers from when `note_random` was called."""
        import torch

        torch.set_rng_state(self._random[0])
        np.random.set_state(self._random[1])
        random.setstate(self._random[2])

    def _save(self, value: Any, depth: int = 0) -> _Saved:
        import torch

        if isinstance(value, torch.Tensor) and type(value) not in (torch.Tensor, torch.nn.Parameter):
            return _Saved(
                value
            )  # a subclass, as the fake tensors that an exported program keeps, may have no bits
        if isinstance(value, torch.Tensor):
            copied = self._copies or not isinstance(value, torch.nn.Parameter)
            first = id(value) not in self._seen  # layers keep lists of their own parameters
            self._seen.add(id(value))
            content = value.detach().clone() if copied and first and not value.is_meta else None
            return _Saved(value, content, _version(value))
        if isinstance(value, np.ndarray):
            return _Saved(value, value.copy())
        if isinstance(value, np.random.Generator):
            return _Saved(value, value.bit_generator.state)
        if isinstance(value, torch.Generator):
            return _Saved(value, value.get_state())
        if depth == _DEPTH or isinstance(value, torch.nn.Module | type):
            return _Saved(value)
        if isinstance(value, dict):
            return _Saved(value, {key: self._save(item, depth + 1) for key, item in value.items()})
        if isinstance(value, list | deque | tuple):
            return _Saved(value, [self._save(item, depth + 1) for item in value])
        if isinstance(value, set):
            return _Saved(value, set(value))
        if type(value).__module__.partition(".")[0] != "torch" and type(getattr(value, "__dict__", None)) is dict:
            return _Saved(value, self._save(vars(value), depth + 1))  # an object of the user's, such as a cache
        return _Saved(value)


def _kept(key: str) -> bool:
    """Whether an attribute is saved: hooks come and go with those who look at a module."""
    return "_hooks" not in key


def _differing(key: str, now: dict[str, Any], saved: dict[str, _Saved]) -> Iterator[str]:
    """Names of what differs in an attribute: of a module's own tables, those of their entries."""
    if key in now and key in saved and _same(saved[key], now[key]):
        return
    entries = saved[key].content if key in saved else None
    if key in ("_parameters", "_buffers", "_modules") and key in now and entries is not None:
        for name in now[key].keys() | entries.keys():
            if name not in now[key] or name not in entries or not _same(entries[name], now[key][name]):
                yield name
    else:
        yield key


def _same(saved: _Saved, now: Any) -> bool:
    import torch

    value, content = saved.value, saved.content
    # torch.export leaves equal copies of a module's lists and dicts in their place.
    if now is not value and content is not None and type(now) is type(value):
        if isinstance(value, dict):
            return now.keys() == content.keys() and all(_same(content[key], now[key]) for key in content)
        if isinstance(value, list | tuple):
            return len(now) == len(content) and all(map(_same, content, now))
    if now is not value:
        return isinstance(value, bool | int | float | str | bytes) and repr(now) == repr(value)
    if content is None and saved.version is None:
        return True
    if isinstance(value, torch.Tensor):
        if saved.version == _version(value) and value.numel() > _LARGE:
            return True
        return saved.version == _version(value) if content is None else _equal(value, content)
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


def _put_back(saved: _Saved) -> None:
    import torch

    value, content = saved.value, saved.content
    if content is None or _same(saved, value):
        return
    if isinstance(value, torch.Tensor):
        with torch.no_grad():
            if value.shape != content.shape:
                value.resize_(content.shape)
            value.copy_(content)
        saved.version = _version(value)
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
    """Whether two tensors hold the same bits."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.layout != second.layout or first.is_sparse or first.is_quantized:
        return True
    try:
        return _bits(first) == _bits(second)
    except RuntimeError:  # a tensor without data
        return True


def _bits(tensor: Any) -> bytes:
    import torch

    found: bytes = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return found
