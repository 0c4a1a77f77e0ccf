"""`onnxtool --help` against the least a click program costs, interleaved in one run."""

import statistics
import subprocess
import sys
import time

ROUNDS = 15


def _wall_time(*command):
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def test_help_starts_within_three_times_click_alone(benchmark):
    def measure():
        help_, click = [], []
        for _ in range(ROUNDS):
            click.append(_wall_time("-c", "import click"))
            help_.append(_wall_time("-m", "onnxtool", "--help"))
        return statistics.median(help_) / statistics.median(click)

    ratio = benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info["help / import click"] = ratio
    assert ratio <= 3
