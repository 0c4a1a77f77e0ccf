"""`pytest benchmarks` runs what the settings of `pytest` skip."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Undo --benchmark-skip before pytest-benchmark reads it."""
    config.option.benchmark_skip = False
