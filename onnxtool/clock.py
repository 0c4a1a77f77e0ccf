"""What time it is, for all that is written into files."""

from __future__ import annotations

import datetime
import os


def now() -> datetime.datetime:
    """The time in UTC; SOURCE_DATE_EPOCH sets it, for reproducible builds (reproducible-builds.org/specs)."""
    stamp = os.environ.get("SOURCE_DATE_EPOCH")
    if stamp:
        return datetime.datetime.fromtimestamp(int(stamp), datetime.UTC)
    return datetime.datetime.now(datetime.UTC)
