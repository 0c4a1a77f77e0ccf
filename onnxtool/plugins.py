"""Plugins that distributions register through entry points, the built-in frameworks and targets among them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TypeGuard, TypeVar

from onnxtool.errors import UsageError

Plugin = TypeVar("Plugin")


def registered(group: str, kind: str, accepts: Callable[[object], TypeGuard[Plugin]]) -> dict[str, Plugin]:
    """Load all that is registered in an entry-point group, by the attribute `name` of what is found.

    Args:
        group: As in `onnxtool.frameworks`.
        kind: What it holds, for messages, as in `framework`.
        accepts: Whether an object is one of these.

    Raises:
        UsageError: two distributions register the same name, or one registers something else or broken.
    """
    found: dict[str, Plugin] = {}
    sources: dict[str, str] = {}
    for point in entry_points(group=group):
        try:
            plugin = point.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"The {kind} {point.name!r} ({point.value}) cannot be imported: {error}. "
                "Repair or uninstall the distribution that registers it."
            ) from error
        if not accepts(plugin):
            raise UsageError(f"Entry point {point.value!r} in {group!r} is not an onnxtool {kind.capitalize()}.")
        name = str(getattr(plugin, "name", ""))
        if name in found:
            raise UsageError(
                f"Two distributions register the {kind} {name!r} ({sources[name]} and {point.value}). "
                "Uninstall one of them."
            )
        found[name], sources[name] = plugin, point.value
    return found
