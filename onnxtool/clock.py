"""The time that is written into files."""

from __future__ import annotations

import datetime
import os

from onnxtool.errors import UsageError


def now() -> datetime.datetime:
    """The time in UTC; SOURCE_DATE_EPOCH sets it, for reproducible builds (reproducible-builds.org/specs).

    Raises:
        UsageError: SOURCE_DATE_EPOCH is no time.
    """
    stamp = os.environ.get("SOURCE_DATE_EPOCH")
    if not stamp:
        return datetime.datetime.now(datetime.UTC)
    try:
        return datetime.datetime.fromtimestamp(int(stamp), datetime.UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"SOURCE_DATE_EPOCH is {stamp!r}, which is no number of seconds since 1970.") from error
