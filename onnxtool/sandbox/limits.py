"""Limits of the process in which a source file is opened, converted and run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from onnxtool.errors import UsageError
from onnxtool.system import machine_memory

GIB = 2**30
_LEAST_MEMORY = GIB // 2
_UNITS = {"": 1, "B": 1, **{f"{prefix}{unit}": base**power for power, prefix in enumerate("KMGT", 1)
                            for unit, base in (("", 1024), ("IB", 1024), ("B", 1000))}}  # fmt: skip


def default_memory() -> int:
    """Half of the machine's memory, but 8 GiB at least, in bytes: a model of 2 GB converts in that."""
    return max(8 * GIB, machine_memory() // 2)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the process of a source file.

    Attributes:
        memory: Bytes that it may allocate (RLIMIT_DATA), and that all of its files may take up.
        timeout: Seconds that it may take to answer: to open the file, to convert it, to run a batch of rows.
        files: Files that it may have open at a time.
        require: Whether the file is refused where the system cannot keep every promise of the sandbox; otherwise a
            warning, and a note in the report, name those that it does not keep.
    """

    memory: int = field(default_factory=default_memory)
    timeout: float = 600.0
    files: int = 256
    require: bool = False

    def __post_init__(self) -> None:
        """Refuse what no framework can be imported with.

        Raises:
            UsageError: a limit is too small.
        """
        if self.memory < _LEAST_MEMORY:
            raise UsageError(f"A memory limit of {self.memory} bytes is too little: 512MiB is the least.")
        if not self.timeout > 0:
            raise UsageError(f"A time limit of {self.timeout:g} s is none. Give seconds above 0.")
        if self.files < 64:
            raise UsageError(f"A limit of {self.files} open files is too little: 64 is the least.")


def parse_size(text: str) -> int:
    """Read a number of bytes, as in `8GiB`, `500MB` or `8G`.

    Raises:
        UsageError: the text is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise UsageError(f"{text!r} is no amount of memory, as 8GiB or 500MB is.")
    return int(float(match[1]) * _UNITS[match[2].upper()])
