"""What the process of a source file is kept from, and what is said where the system does not keep it from it."""

from __future__ import annotations

from typing import Final

MEMORY: Final = "its memory could not be limited"
NETWORK: Final = "it could not be kept from the network"
FILES: Final = "it could not be kept from this user's other files"

PROMISES: Final = {
    "a limit on memory": MEMORY,
    "no network": NETWORK,
    "no other files, no programs": FILES,
}
"""Promise to what is said where it is not kept."""
