"""Numbers over commits: where they are kept, how changes are found, and the gate on the recent level."""

import datetime
import json
import multiprocessing
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression

import onnxtool
from onnxtool.cli import cli
from onnxtool.errors import DataError, OutputError, UsageError
from onnxtool.history.runs import Commit, Run, Series, commit_here, machine_of, read_runs, runs_of
from onnxtool.history.store import History, add
from onnxtool.history.trends import changes, compare_with_level, level, ratio_interval
from onnxtool.history.view import page
from onnxtool.reports import json as report_json

P50 = "bench/CPU, batch 1/p50_s"


def run(place, value=1e-5, model="m.onnx", machine="big", commit=None, **numbers):
    commit = Commit(commit or f"{place:040x}", "main", float(place))
    return Run(model, machine, commit, float(place), {P50: value, **numbers}, True)


def series(values):
    return Series("m.onnx", "big", P50, list(values), [f"c{place}" for place in range(len(values))], [])


def noisy(level, count, seed):
    return level * np.random.default_rng(seed).lognormal(0, 0.02, count)


# -- Changes ------------------------------------------------------------------------------------------------


def test_a_slowdown_is_found_with_its_size_and_its_commits():
    (change,) = changes(series([*noisy(1e-5, 30, 0), *noisy(1.2e-5, 20, 1)]))
    assert change.at == 30
    assert (change.first, change.last) == ("c29", "c30")
    assert change.low < 1.2 < change.high
    assert change.low > 1.15
    assert change.high < 1.25


def test_a_change_is_placed_at_its_commit():
    right = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        values = 1e-5 * rng.lognormal(0, 0.03, 40) * np.where(np.arange(40) >= 27, 1.2, 1)
        right += [change.at for change in changes(series(values))] == [27]
    assert right >= 55


def test_noise_alone_is_no_change():
    found = sum(bool(changes(series(noisy(1e-5, 60, seed)))) for seed in range(200))
    assert found <= 4  # 1 % of 200, and the smallest effect besides


def test_two_changes_are_two():
    found = changes(series([*noisy(1e-5, 25, 0), *noisy(2e-5, 25, 1), *noisy(1e-5, 25, 2)]))
    assert [change.at for change in found] == [25, 50]
    assert [round(change.ratio, 1) for change in found] == [2.0, 0.5]


def test_a_size_has_no_noise_and_any_step_is_a_change():
    (change,) = changes(series([1000.0] * 3 + [1001.0] * 2))
    assert (change.at, change.ratio, change.low, change.high) == (3, 1.001, 1.001, 1.001)
    (change,) = changes(series([0.0] * 12 + [3.0] * 2))  # rows that drift
    assert (change.before, change.after, change.ratio) == (0.0, 3.0, None)


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        before, after = rng.lognormal(0, 0.1, 10), 1.3 * rng.lognormal(0, 0.1, 12)
        _, low, high = ratio_interval(before, after)
        hits += low <= 1.3 <= high
    assert 0.92 <= hits / 400 <= 0.98
    assert ratio_interval([1.0, 1.0], [2.0, 2.0]) == (pytest.approx(2.0), 0.0, float("inf"))


def test_the_level_is_of_the_runs_since_the_last_change():
    values = [*noisy(1e-5, 30, 0), *noisy(1.5e-5, 10, 1)]
    assert level(series(values)) == values[30:]
    assert len(level(series(noisy(1e-5, 60, 0)))) == 20


# -- The store ----------------------------------------------------------------------------------------------


def test_runs_come_back_by_commit_and_machine(tmp_path):
    path = tmp_path / "history.sqlite"
    assert add(path, [run(2, 3e-5), run(1, 2e-5), run(3, 9e-5, machine="small")]) == 3
    assert add(path, [run(2, 3e-5)]) == 0  # it is there
    history = History(path)
    big, small = history.series("m.onnx")
    assert (big.values, big.commits[0]) == ([2e-5, 3e-5], f"{1:040x}")
    assert (small.machine, small.values) == ("small", [9e-5])
    with pytest.raises(UsageError, match=r"no run of 'other'. It has: m\.onnx"):
        history.series("other")


def test_another_branch_is_not_mixed_in(tmp_path):
    path = tmp_path / "history.sqlite"
    other = Run("m.onnx", "big", Commit("f" * 40, "feature", 9.0), 9.0, {P50: 1.0})
    add(path, [run(1), run(2), other])
    history = History(path)
    assert history.branch_of("m.onnx") == "main"
    assert len(history.series("m.onnx")[0].values) == 2
    assert history.series("m.onnx", "feature")[0].values == [1.0]


def _write(path, writer, count):
    for place in range(count):
        add(Path(path), [run(1 + place, commit=f"{writer}-{place}", model=f"model-{writer}")])


def test_writers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "history.sqlite"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(str(path), writer, 40)) for writer in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    history = History(path)
    assert history.runs() == 80
    assert history.models() == ["model-0", "model-1"]


WRITER = """
import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])
from test_history import run; from onnxtool.history.store import add
place = 0
while True:
    place += 1
    add(Path(sys.argv[1]), [run(place, **{f"number {n}": 1.0 for n in range(300)}), run(place, model="second")])
    print(place, flush=True)
"""


def test_a_killed_writer_leaves_a_sound_file(tmp_path):
    path = tmp_path / "history.sqlite"
    written = 0
    command = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)]
    for pause in (0.013, 0.071, 0.2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            time.sleep(pause)
            os.kill(process.pid, signal.SIGKILL)
            written = max(written, 1, *map(int, process.stdout.read().split()))
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        pairs = connection.execute("SELECT model, count(*) FROM runs GROUP BY model").fetchall()
        connection.close()
        assert len({count for _, count in pairs}) == 1, pairs  # a report is in it whole, or not at all
        assert pairs[0][1] >= written


def test_what_is_no_history_is_a_message(tmp_path):
    with pytest.raises(DataError, match="Make it: onnxtool history add"):
        History(tmp_path / "none.sqlite")
    (tmp_path / "text").write_text("no database, but longer than a header of SQLite's", encoding="utf-8")
    with pytest.raises(DataError, match="is no history"):
        History(tmp_path / "text")
    with pytest.raises(OutputError, match="only read"):
        add(tmp_path, [run(1)])
    connection = sqlite3.connect(tmp_path / "newer")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(DataError, match="version is 9"):
        History(tmp_path / "newer")


# -- Where runs come from -----------------------------------------------------------------------------------


def test_the_commit_is_of_git_or_of_ci(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    assert commit_here(tmp_path, {}) == Commit()
    git("init", "-b", "trunk")
    git("-c", "user.name=a", "-c", "user.email=b", "commit", "--allow-empty", "-m", "first")
    found = commit_here(tmp_path, {})
    assert re.fullmatch("[0-9a-f]{40}", found.id)
    assert found.branch == "trunk"
    assert abs(found.time_s - time.time()) < 600
    ci = commit_here(tmp_path, {"GITHUB_SHA": found.id, "GITHUB_REF_NAME": "main"})
    assert ci == Commit(found.id, "main", found.time_s)


@pytest.fixture
def report():
    return report_json.read(Path(__file__).parent / "reports" / "golden" / "report-2.0.json")


def test_another_machine_is_another_series(report):
    before = machine_of(report.environment)
    report.environment.libraries["onnxruntime"] = "99"
    assert machine_of(report.environment) == before  # what made it slower is to be seen
    report.environment.cpu.usable_cores += 1
    assert machine_of(report.environment) != before


def test_a_report_has_latency_throughput_memory_size_drift_and_quality(report):
    (first, *_) = runs_of(report, Commit("a" * 40, "main"))
    names = set(first.numbers)
    assert {"model/size_bytes", "parity/probabilities/max_absolute", "drift/accuracy/onnx"} <= names
    assert {"bench/CPU, batch 1, 1 thread/p50_s", "bench/CPU, batch 1, 1 thread/rows_per_s"} <= names
    text = page([(first.model, "main", [Series(first.model, "m", name, [value], ["c"], [1.0])
                                        for name, value in first.numbers.items()])], "h")  # fmt: skip
    for kind in ("Latency", "Throughput", "Memory", "Size", "Drift", "Quality"):
        assert f"<figcaption>{kind}" in text


def test_pytest_benchmarks_own_file_is_read(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "def test_sum(benchmark):\n    benchmark(sum, [1, 2])\n", encoding="utf-8"
    )
    # pytest-benchmark measures nothing in a worker of pytest-xdist, which it knows by its variables.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-json=out.json",
         "--benchmark-max-time=0.05", "test_it.py"], cwd=tmp_path, env=alone, check=True, capture_output=True,
    )  # fmt: skip
    (found,) = read_runs(tmp_path / "out.json", Commit())
    assert found.model == "test_it.py::test_sum"
    stats = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["benchmarks"][0]["stats"]
    assert found.numbers == {"bench/median_s": stats["median"], "bench/min_s": stats["min"]}


def test_asvs_results_are_read(tmp_path):
    """A file of the layout that asv writes (version 2), made by hand."""
    content = {
        "commit_hash": "4c1a3d", "env_name": "virtualenv-py3.11", "date": 1735689600000, "python": "3.11",
        "params": {"arch": "x86_64", "cpu": "Xeon", "machine": "ci-1", "num_cpu": "4", "os": "Linux 6.1"},
        "version": 2,
        "result_columns": ["result", "params", "version", "started_at", "duration"],
        "results": {
            "time_units.time_simple": [[1.2e-5], [], "abc", 1735689600000, 3.1],
            "time_units.time_batches": [[1e-3, None, 4e-3], [["1", "8", "64"]], "def", 1735689600000, 9.0],
        },
    }  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps(content), encoding="utf-8")
    simple, batches = read_runs(tmp_path / "r.json", Commit("other"))
    assert simple.numbers == {"bench/all/median_s": 1.2e-5}
    assert batches.numbers == {"bench/1/median_s": 1e-3, "bench/64/median_s": 4e-3}
    assert simple.commit == Commit("4c1a3d", "", 1735689600.0)
    del content["results"]
    (tmp_path / "r.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        read_runs(tmp_path / "r.json", Commit())


# -- The gate -----------------------------------------------------------------------------------------------


def _compared(report, past, now):
    bench = report.subjects[0].bench
    bench.cells = [cell for cell in bench.cells if cell.provider == "CPUExecutionProvider"][:1]
    bench.cells[0].latency.percentiles[0].value_s = now
    name = "bench/CPU, batch 1, 1 thread/p50_s"
    history = [Series("m", "big", name, list(past), ["c"] * len(past), [])]
    (found,) = compare_with_level(bench, history, against="h", effect=0.05)
    return found


def test_a_run_is_compared_with_the_level_and_not_with_one_run(report):
    past = noisy(1e-5, 20, 0)
    assert _compared(report, past, 1.3e-5).outcome == "fail"
    assert _compared(report, noisy(1e-5, 20, 0) * 0 + 1e-5, 1.02e-5).outcome == "pass"
    assert _compared(report, past, 1.05e-5).outcome == "undecided"
    found = _compared(report, past[:4], 1.3e-5)
    assert found.outcome == "undecided"
    assert "needs 5. Add reports with: onnxtool history add" in found.reason
    slower = [*noisy(1e-5, 30, 0), *noisy(1.3e-5, 10, 1)]  # the change was accepted: the level is the new one
    assert _compared(report, slower, 1.3e-5).outcome != "fail"


def test_bench_fails_where_it_is_slower_than_its_level(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    onnxtool.convert(LogisticRegression().fit(x, x[:, 0] > 0), "m.onnx", data=x)
    report = onnxtool.bench("m.onnx", duration=0.1, sandbox=None)
    (now,) = runs_of(report, commit_here(tmp_path))
    name = "bench/CPU, batch 1/p50_s"
    for path, factor in (("faster.sqlite", 0.1), ("slower.sqlite", 10)):
        numbers = {name: now.numbers[name] * factor}
        add(Path(path), [Run(now.model, now.machine, now.commit, float(place), numbers) for place in range(6)])
    done = CliRunner().invoke(cli, ["bench", "m.onnx", "--duration", "0.1", "--against-history", "faster.sqlite"],
                              catch_exceptions=False, standalone_mode=False)  # fmt: skip
    assert done.return_value == 1
    assert "history faster.sqlite" in done.output
    passed = onnxtool.bench("m.onnx", duration=0.1, against_history="slower.sqlite")
    assert passed, passed[0].checks
    assert passed[0].comparisons[0].against_median_s == pytest.approx(10 * now.numbers[name])
    with pytest.raises(DataError, match="There is no history"):
        onnxtool.bench("m.onnx", duration=0.1, against_history="none.sqlite")


# -- The commands -------------------------------------------------------------------------------------------


def test_reports_are_added_shown_and_written_as_a_page(report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    files = []
    for place in range(6):
        report.created += datetime.timedelta(hours=1)
        report.subjects[0].model.size_bytes = 2_000_000 if place > 2 else 1_000_000
        files.append(f"{place}.json")
        Path(files[-1]).write_text(report.model_dump_json(), encoding="utf-8")
        options = ["--commit", f"abcdef{place}", "--branch", "main"]
        done = runner.invoke(cli, ["history", "add", files[-1], *options], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    done = runner.invoke(cli, ["history", "show", report.subjects[0].name], catch_exceptions=False)
    assert "abcdef2..abcdef3" in done.output
    assert "+100 %" in done.output
    done = runner.invoke(cli, ["history", "show", "--html", "h.html"], catch_exceptions=False)
    text = Path("h.html").read_text(encoding="utf-8")
    assert "abcdef2..abcdef3" in text
    assert "<script" not in text.replace("&lt;script", "")
    done = runner.invoke(cli, ["history", "show", "--history", str(tmp_path)], catch_exceptions=False)
    assert "2..3" in done.output  # a folder of reports, named by their files


@pytest.mark.alone
def test_two_thousand_reports_of_fifty_models_are_a_page(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "history.sqlite"
    runs = [
        run(
            place, float(noise), model=f"model-{model:02}.onnx",
            **{f"bench/CPU, batch {batch}/{name}": float(noise) * batch for batch in (8, 32)
               for name in ("p50_s", "rows_per_s", "peak_memory_bytes")},
            **{"model/size_bytes": 1e6 + model, "parity/y/max_absolute": 1e-7, "drift/accuracy/onnx": 0.9},
        )
        for model in range(50)
        for place, noise in enumerate(1e-5 * rng.lognormal(0, 0.03, 40))
    ]  # fmt: skip
    assert add(path, runs) == 2000
    start = time.process_time()
    CliRunner().invoke(
        cli,
        ["history", "show", "--history", str(path), "--html", str(tmp_path / "h.html")],
        catch_exceptions=False,
    )
    assert time.process_time() - start < 3
    assert (tmp_path / "h.html").stat().st_size < 2_000_000
    assert (tmp_path / "h.html").read_text(encoding="utf-8").count('class="timeline"') == 500
