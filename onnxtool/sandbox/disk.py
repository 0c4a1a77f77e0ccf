"""How much of the disk a confined process takes up, which no limit of the system counts over all of its files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_BLOCK = 512  # the unit of st_blocks, whatever the file system's own is
_MAPPED = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) +(.*) \(deleted\)")


def used(folder: Path, process: int) -> int:
    """Bytes of the files in a folder, and of files deleted from it that a process still holds open or maps.

    Args:
        folder: The only one in which the process may write.
        process: Its id.
    """
    sizes: dict[tuple[int, int], int] = {}
    for entry in [*_files(folder), *_deleted(Path(f"/proc/{process}/fd"))]:
        sizes[entry.st_dev, entry.st_ino] = entry.st_blocks * _BLOCK
    with suppress(OSError):
        for line in Path(f"/proc/{process}/maps").read_text(errors="replace").splitlines():
            if (found := _MAPPED.fullmatch(line)) and found[7].startswith(f"{folder}{os.sep}"):
                first, last, offset, *device = (int(number, 16) for number in found.groups()[:5])
                place = os.makedev(*device), int(found[6])
                sizes[place] = max(sizes.get(place, 0), offset + last - first)
    return sum(sizes.values())


def _files(folder: Path) -> Iterator[os.stat_result]:
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            with suppress(OSError):  # it is gone by now
                yield os.lstat(Path(place, name))


def _deleted(descriptors: Path) -> Iterator[os.stat_result]:
    """Open files without a name; a pipe or a device has no blocks."""
    with suppress(OSError):
        for descriptor in os.scandir(descriptors):
            with suppress(OSError):
                found = Path(descriptor.path).stat()
                if found.st_nlink == 0:
                    yield found
