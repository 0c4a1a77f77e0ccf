"""Progress below the cell of a notebook, in JupyterLab, VS Code and whatever else shows IPython's displays."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

_INTERVAL_S = 0.1
"""Updates come no faster: each is a message to the browser."""


def in_notebook() -> bool:
    """Whether a notebook runs this code. IPython in a terminal is none, and has no display to update."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar that is there while the block runs; nothing outside of a notebook, or in continuous integration."""
    if os.environ.get("CI") or not in_notebook():
        yield None
        return
    displays: Any = sys.modules["IPython.display"]
    handle = displays.DisplayHandle()
    handle.display(_bar("Starting", 0, 0), raw=True)
    last = ("Starting", 0.0)

    def show(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if stage != last[0] or now - last[1] > _INTERVAL_S:
            last = (stage, now)
            handle.update(_bar(stage, done, total), raw=True)

    try:
        yield show
    finally:
        handle.update({"text/html": "", "text/plain": ""}, raw=True)


def _bar(stage: str, done: int, total: int) -> dict[str, Any]:
    value = f' value="{done}" max="{total}"' if total else ""
    share = f" {done:,} of {total:,}" if total else ""
    return {
        "text/html": f"<progress{value}></progress> {escape(stage)}{share}",
        "text/plain": f"{stage}{share}",
    }
