"""Where runs are kept: one SQLite file, to which several may write at once; or a folder of reports, only read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from onnxtool.errors import DataError, OutputError, UsageError
from onnxtool.history.runs import Commit, Run, Series, read_runs

VERSION = 1
"""Of the tables."""

_WAIT_S = 60.0
"""How long a run waits for another that writes."""

_TABLES = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    model TEXT NOT NULL,
    machine TEXT NOT NULL,
    branch TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    committed_s REAL,
    created_s REAL NOT NULL,
    passed INTEGER
);
CREATE TABLE numbers (
    run INTEGER NOT NULL REFERENCES runs,
    name TEXT NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (run, name)
) WITHOUT ROWID;
CREATE INDEX runs_by_model ON runs (model, machine, branch);
"""


class History:
    """Runs over time.

    Args:
        path: The SQLite file; or a folder, whose `.json` files are read and to which nothing is added.

    Raises:
        DataError: it is not there, or is neither.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = _of_folder(path) if path.is_dir() else _opened(path, create=False)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def models(self) -> list[str]:
        """Names of all models."""
        return [name for (name,) in self._connection.execute("SELECT DISTINCT model FROM runs ORDER BY model")]

    def runs(self) -> int:
        """How many there are."""
        return int(self._connection.execute("SELECT count(*) FROM runs").fetchone()[0])

    def branch_of(self, model: str) -> str:
        """The branch on which a model has most runs."""
        query = "SELECT branch FROM runs WHERE model = ? GROUP BY branch ORDER BY count(*) DESC, branch LIMIT 1"
        found = self._connection.execute(query, (model,)).fetchone()
        return str(found[0]) if found else ""

    def series(self, model: str, branch: str | None = None) -> list[Series]:
        """The numbers of a model over commits, each machine by itself.

        Args:
            model: Its name.
            branch: The branch; by default that on which it has most runs.

        Raises:
            UsageError: there is no run of the model.
        """
        if model not in self.models():
            names = ", ".join(self.models()[:8]) or "none"
            raise UsageError(f"{self.path} has no run of {model!r}. It has: {names}.")
        query = (
            "SELECT machine, name, value, commit_id, created_s FROM runs JOIN numbers ON numbers.run = runs.id"
            " WHERE model = ? AND branch = ? ORDER BY machine, name, coalesce(committed_s, created_s), created_s"
        )
        found: dict[tuple[str, str], Series] = {}
        where = (model, self.branch_of(model) if branch is None else branch)
        for machine, name, value, commit, created in self._connection.execute(query, where):
            series = found.setdefault((machine, name), Series(model, machine, name))
            series.values.append(value)
            series.commits.append(commit)
            series.times_s.append(created)
        return list(found.values())


def add(path: Path, runs: Iterable[Run]) -> int:
    """Add runs to a history, which is made where there is none. All of them are added, or none.

    Args:
        path: The SQLite file.
        runs: What to add; a run that is there already is not added again.

    Returns:
        How many were new.

    Raises:
        OutputError: the file cannot be written.
        DataError: it is no history.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder of reports, which is only read: put the report there.")
    with closing(_opened(path, create=True)) as connection, _writing(connection, path):
        return _insert(connection, runs)


def _insert(connection: sqlite3.Connection, runs: Iterable[Run]) -> int:
    added = 0
    for run in runs:
        row = (
            run.digest, run.model, run.machine, run.commit.branch, run.commit.id, run.commit.time_s, run.created_s,
            None if run.passed is None else int(run.passed),
        )  # fmt: skip
        cursor = connection.execute(
            "INSERT OR IGNORE INTO runs (digest, model, machine, branch, commit_id, committed_s, created_s, passed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        if cursor.rowcount:
            added += 1
            numbers = [(cursor.lastrowid, name, value) for name, value in run.numbers.items()]
            connection.executemany("INSERT INTO numbers VALUES (?, ?, ?)", numbers)
    return added


@contextmanager
def _writing(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """One transaction, for which this run waits until no other writes."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise OutputError(f"Cannot write {path}: {error}.") from error


def _opened(path: Path, *, create: bool) -> sqlite3.Connection:
    if not create and not path.exists():
        raise DataError(f"There is no history {path}. Make it: onnxtool history add REPORT.json --history {path}")
    try:
        connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and create:
            connection.execute("BEGIN IMMEDIATE")  # another run may be making it
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
            version = VERSION
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise OutputError(f"Cannot open {path}: {error}.") from error
        raise DataError(f"{path} is no history: {error}.") from error
    if version != VERSION:
        raise DataError(f"{path} is no history that this onnxtool reads: its version is {version}, not {VERSION}.")
    return connection


def _of_folder(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(_TABLES)
    runs = [run for path in sorted(folder.glob("*.json")) for run in read_runs(path, Commit(path.stem))]
    if not runs:
        raise DataError(f"The folder {folder} has no report: it needs .json files of onnxtool's --json.")
    _insert(connection, runs)
    return connection
