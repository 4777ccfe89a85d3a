"""Runner: the ceiling, sqlite3 alone in the same shape. `python -m benchmarks.raw_sqlite HOW FILE TASKS`.

One thread, one connection, synchronous=FULL; inserts in hundreds, then claims a hundred, decodes them, deletes them.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time

from benchmarks import workload


def insert(path: str, tasks: int) -> None:
    connection = _connect(path)
    connection.execute("CREATE TABLE task (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, body BLOB NOT NULL)")
    connection.execute("CREATE INDEX ready ON task (id) WHERE state = 0")
    start, cpu = time.perf_counter(), time.process_time()
    for chunk in workload.chunks(workload.bodies(tasks)):
        rows = [(json.dumps(body, separators=(",", ":")).encode(),) for body in chunk]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO task (state, body) VALUES (0, ?)", rows)
        connection.execute("COMMIT")
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    (stored,) = connection.execute("SELECT count(*) FROM task").fetchone()
    connection.close()
    workload.answer(tasks, seconds, range(stored), cpu_seconds=cpu, synchronous="FULL")


def handle(path: str, tasks: int) -> None:
    connection = _connect(path)
    seen: list[int] = []
    start, cpu = time.perf_counter(), time.process_time()
    while claimed := connection.execute(
        """UPDATE task SET state = 1 WHERE id IN (SELECT id FROM task WHERE state = 0 ORDER BY id LIMIT ?)
        RETURNING id, body""",
        (workload.BATCH,),
    ).fetchall():
        seen += [json.loads(body)["n"] for _, body in claimed]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("DELETE FROM task WHERE id = ?", [(row,) for row, _ in claimed])
        connection.execute("COMMIT")
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    connection.close()
    workload.answer(tasks, seconds, seen, cpu_seconds=cpu, synchronous="FULL")


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


if __name__ == "__main__":
    {"insert": insert, "handle": handle}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
