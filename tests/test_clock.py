import datetime

import pytest

from onnxtool import clock
from onnxtool.errors import UsageError


def test_the_time_is_that_of_the_build_if_there_is_one(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert clock.now() == datetime.datetime(1970, 1, 2, tzinfo=datetime.UTC)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    assert abs(clock.now() - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=1)


@pytest.mark.parametrize("stamp", ["today", "1.5", "9" * 40])
def test_what_is_no_time_is_an_error(monkeypatch, stamp):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", stamp)
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        clock.now()
