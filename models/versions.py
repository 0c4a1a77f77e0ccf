"""The release of its library that wrote a model file, and whether the installed one gives the same meaning.

Each library promises something else of its files: see `PROMISES`. A pickle of scikit-learn is a copy of the
attributes of one release, and another release may read other things into them; see "Model persistence" in its docs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Literal, Protocol, TypeAlias

from packaging.version import Version

from onnxtool.reports.model import SavedBy

Promise: TypeAlias = Literal["minor", "major", "later"]

PROMISES: dict[Promise, str] = {
    "minor": "the meaning of a saved model is kept within a minor release only",
    "major": "the meaning of a saved model is kept by later releases of the same major one",
    "later": "the meaning of a saved model is kept by all later releases",
}
"""How far a library keeps the meaning of what an earlier release of it has saved."""


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes."""
        ...


_CHUNK = 2**20
_OVERLAP = 256
_NUMBER = rb"(\d+(?:\.\d+)*(?:(?:a|b|rc)\d+)?(?:\.(?:post|dev)\d+)?)"

SKLEARN = re.compile(
    # Of a pickle: the key, perhaps remembered, and its value by any of the operations that put text on the stack.
    rb"_sklearn_version(?:\x94|q.|r.{4}|\np\d+\n)?(?:\x8c.|X.{4}|V)"
    + _NUMBER
    # Of skops: an entry of its JSON.
    + rb'|"_sklearn_version":\s*\{[^{}]*"content":\s*"\\"'
    + _NUMBER
    + rb'\\""',
    re.DOTALL,
)
"""Where scikit-learn's estimators keep the release that saved them."""
XGBOOST = re.compile(rb'version\[#L\0{7}\x03i(.)i(.)i(.)|"version":\[(\d+),(\d+),(\d+)\]', re.DOTALL)
"""Where XGBoost's models keep theirs, in UBJSON and in JSON."""
LIGHTGBM = re.compile(rb"tree\nversion=v(\d+)\n")
"""Where LightGBM's keep the number of their format, which is its major release; the release is not in them."""


def saved_by(library: str, version: str, running: str, promise: Promise) -> SavedBy:
    """The release of a library that saved a file, and what is known of it.

    Args:
        library: Name of the distribution.
        version: The release that saved the file.
        running: The release that reads it.
        promise: What the library promises of files of this format.
    """
    saved, here = (Version(release).release for release in (version, running))
    same = saved[:2] == here[:2] or (
        saved < here and (promise == "later" or (promise == "major" and saved[:1] == here[:1]))
    )
    return SavedBy(library=library, version=version, running=running, promise=PROMISES[promise], same_meaning=same)


def find_releases(
    opened: Callable[[], AbstractContextManager[Readable]], xgboost: Promise = "later"
) -> list[SavedBy]:
    """The releases of scikit-learn and the boosting libraries that a file names, of those that are imported.

    Args:
        opened: Opens the file, decompressed.
        xgboost: What XGBoost promises of it: nothing of pickles beyond a minor release, all of its own files.
    """
    found = []
    marks: tuple[tuple[str, str, re.Pattern[bytes], Promise], ...] = (
        ("sklearn", "scikit-learn", SKLEARN, "minor"),
        ("xgboost", "xgboost", XGBOOST, xgboost),
        ("lightgbm", "LightGBM's format", LIGHTGBM, "later"),
    )
    for module, library, pattern, promise in marks:
        if module not in sys.modules:
            continue
        running = str(sys.modules[module].__version__)
        if pattern is LIGHTGBM:
            running = running.partition(".")[0]
        with opened() as stream:
            found += [
                saved_by(library, version, running, promise) for version in _versions_in(stream.read, pattern)
            ]
    return found


def _versions_in(read: Callable[[int], bytes], pattern: re.Pattern[bytes]) -> list[str]:
    """The versions that a file names, in their order.

    Args:
        read: Gives up to so many bytes of it, decompressed.
        pattern: Where they stand: one of the three above.
    """
    found: dict[str, None] = {}
    for window in _windows(read):
        for match in pattern.finditer(window):
            # Numbers in UBJSON are bytes; all others are text.
            parts = [part for part in match.groups() if part is not None]
            raw = pattern is XGBOOST and match[1] is not None
            found[".".join(str(part[0]) if raw else part.decode() for part in parts)] = None
    return list(found)


def _windows(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Chunks that overlap, so that nothing is cut in two."""
    window = b""
    while chunk := read(_CHUNK):
        window = window[-_OVERLAP:] + chunk
        yield window
