"""The longest time of a cell: engines may take many minutes to build, so that users choose it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import onnxtool
from onnxtool.cli import cli
from onnxtool.errors import UsageError


@pytest.mark.parametrize("against", [False, True], ids=["cell", "comparison"])
def test_what_takes_longer_has_failed_and_more_time_mends_it(dense_model, against):
    arguments = ["bench", str(dense_model), "--duration", "0.05", *(["--against", str(dense_model)] * against)]
    found = CliRunner().invoke(cli, [*arguments, "--budget", "0.5", "--timeout", "0.01"], standalone_mode=False)
    assert found.return_value == 1 and "did not end within 0.01 s (--timeout)" in " ".join(found.output.split())
    arguments += ["--budget", "0.5", "--undecided", "pass", "--timeout", "120"]
    found = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert found.return_value == 0, found.output


def test_a_time_is_above_0(dense_model):
    with pytest.raises(UsageError, match="above 0"):
        onnxtool.bench(dense_model, timeout=0.0)
