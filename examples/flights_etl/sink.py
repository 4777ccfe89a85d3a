"""The table the flights end in: chDB, ClickHouse's engine inside this process, through clickhouse-connect.

chDB allows one process at a time on a directory, and a process that has imported it must not fork, so only the loading
role opens a sink while the demo runs, and the verifying role after it. clickhouse-connect imports chDB when the client
is made, not before. One `Sink` may be used from several threads: the client runs one statement at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from clickhouse_connect import get_client

from examples.flights_etl import schema


class Sink:
    """The `flights` table under one directory, made if it is not there."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._client = get_client(interface="chdb", path=str(path.resolve()))
        self._client.command(schema.CREATE_TABLE)

    def insert(self, ids: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
        """Store rows under their task ids; they are on disk when this returns. The same id again replaces its row."""
        self._client.insert(
            schema.TABLE,
            schema.to_columns(ids, rows),
            column_names=schema.NAMES,
            column_type_names=schema.TYPES,  # else the client asks the table for them before every insert
            column_oriented=True,
        )

    def count(self) -> int:
        """Return how many different task ids are stored: `FINAL` looks through rows that were stored twice."""
        [[rows]] = self._query(f"SELECT count() FROM {schema.TABLE} FINAL")
        return int(str(rows))

    def count_by_carrier(self) -> dict[str, int]:
        """Return the number of flights of each carrier."""
        rows = self._query(f"SELECT carrier, count() FROM {schema.TABLE} FINAL GROUP BY carrier")
        return {str(carrier): int(str(flights)) for carrier, flights in rows}

    def sums(self) -> tuple[int, int]:
        """Return the miles of all flights and the number that never departed: do the columns hold their own values?"""
        [[miles, cancelled]] = self._query(f"SELECT sum(distance), countIf(dep_time IS NULL) FROM {schema.TABLE} FINAL")
        return int(str(miles)), int(str(cancelled))

    def close(self) -> None:
        """Release the directory for the next process."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _query(self, statement: str) -> Sequence[Sequence[object]]:
        return self._client.query(statement).result_rows
