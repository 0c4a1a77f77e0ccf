"""The restrictions on the process of a source file, and the messages where the system does not enforce them."""

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
"""Promise to the message where it is not kept."""
