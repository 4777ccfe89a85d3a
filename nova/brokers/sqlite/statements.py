"""What the driver asks of the file, as functions of a connection inside a transaction.

Each touches many rows in one statement where it can: the sqlite3 module gives the GIL away at every step of a statement,
and beside busy handlers each step back costs up to a switch interval (5 ms).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from nova.brokers.base import Delivery, Message, TopicDepth
from nova.envelope import TARGET

__all__ = ["Claim", "claim", "delete", "depth", "extend", "insert", "lane_id", "register", "release", "sweep"]

NO_GROUP = ""
SUSPECT_AFTER = 3
"""A message handed out this often without a clean end may be killing its consumers (DESIGN section 4)."""

_DEAD = "_DEAD"
_CHUNKS = (128, 16, 1)
_COLUMNS = 5


class Claim(NamedTuple):
    """The right to one row, until somebody claims it again."""

    row: int
    number: int


def insert(connection: sqlite3.Connection, messages: Sequence[Message], now_ms: int) -> None:
    """Store messages, a row for each group that wants them."""
    lanes: dict[str, list[int]] = {}
    values: list[int | bytes] = []
    for message in messages:
        if message.group is not None:
            targets = [lane_id(connection, message.topic, message.group)]
        else:
            targets = lanes.get(message.topic) or lanes.setdefault(
                message.topic, _fresh_lanes(connection, message.topic)
            )
        headers = encode_headers(message.headers)
        for lane in targets:
            values += (lane, message.due_ms or now_ms, now_ms, headers, message.body)
    _insert_rows(connection, values)


def claim(
    connection: sqlite3.Connection, lane: int, topic: str, limit: int, now_ms: int, lease_ms: int, charged: int
) -> list[Delivery]:
    """Take up to `limit` due rows of a lane, oldest due first."""
    rows = connection.execute(
        """UPDATE nova_messages SET state = 1, lease = ?, claim = claim + 1, deliveries = deliveries + 1,
            charges = charges + ?
        WHERE id IN (SELECT id FROM nova_messages WHERE lane = ? AND state = 0 AND due <= ? ORDER BY due, id LIMIT ?)
        RETURNING due, id, claim, deliveries, charges, stored, headers, body""",
        (now_ms + lease_ms, charged, lane, now_ms, limit),
    ).fetchall()
    rows.sort()
    return [
        Delivery(topic, body, decode_headers(headers), Claim(row, number), stored, deliveries >= SUSPECT_AFTER, charges)
        for _, row, number, deliveries, charges, stored, headers, body in rows
    ]


def delete(connection: sqlite3.Connection, claims: Sequence[Claim]) -> int:
    """Remove the rows whose claims still hold."""
    rows: dict[int, list[int]] = {}  # by claim number, nearly always 1: four times faster than row values
    for row, number in claims:
        rows.setdefault(number, []).append(row)
    query = "DELETE FROM nova_messages WHERE claim = ? AND id IN (SELECT value FROM json_each(?))"
    return sum(connection.execute(query, (number, _dump(ids).decode())).rowcount for number, ids in rows.items())


def release(connection: sqlite3.Connection, claims: Sequence[Claim], charged: int) -> None:
    """Give rows back and take their counts back."""
    connection.execute(
        f"""UPDATE nova_messages SET state = 0, lease = 0, deliveries = max(deliveries - 1, 0),
            charges = max(charges - ?, 0) WHERE {_CLAIMED}""",
        (charged, _as_json(claims)),
    )


def extend(connection: sqlite3.Connection, claims: Sequence[Claim], lease_ms: int) -> set[int]:
    """Move the lease of rows whose claims still hold (an expired row that nobody took is ours again); returns their ids."""
    rows = connection.execute(
        f"UPDATE nova_messages SET state = 1, lease = ? WHERE {_CLAIMED} RETURNING id", (lease_ms, _as_json(claims))
    )
    return {row[0] for row in rows.fetchall()}


def sweep(connection: sqlite3.Connection, now_ms: int) -> int:
    """Give back the rows whose lease has run out; their counts stay. Consumers of that time count no more."""
    connection.execute("DELETE FROM nova_consumers WHERE until <= ?", (now_ms,))
    return connection.execute(
        "UPDATE nova_messages SET state = 0, lease = 0 WHERE state = 1 AND lease <= ?", (now_ms,)
    ).rowcount


def register(connection: sqlite3.Connection, topic: str, group: str) -> int:
    """Make the group a consumer of the topic; the first one takes what came before any. Returns its lane."""
    if not _registered(connection, topic):
        connection.execute(
            """UPDATE OR IGNORE nova_lanes SET grp = ? WHERE topic = ? AND grp = ?""", (group, topic, NO_GROUP)
        )
        _merge_unclaimed(connection, topic, group)
    lane = lane_id(connection, topic, group)
    connection.execute("UPDATE nova_lanes SET registered = 1 WHERE id = ?", (lane,))
    return lane


def lane_id(connection: sqlite3.Connection, topic: str, group: str) -> int:
    """The lane of a topic and group, made if missing."""
    query = "SELECT id FROM nova_lanes WHERE topic = ? AND grp = ?"
    row = connection.execute(query, (topic, group)).fetchone()
    if row is None:
        connection.execute("INSERT INTO nova_lanes (topic, grp) VALUES (?, ?)", (topic, group))
        row = connection.execute(query, (topic, group)).fetchone()
    return int(row[0])


def depth(connection: sqlite3.Connection, topic: str, group: str, now_ms: int) -> TopicDepth:
    """Counts of one lane; of the lane of nobody while the group has none."""
    rows = connection.execute(
        "SELECT id FROM nova_lanes WHERE topic = ? AND grp IN (?, ?) ORDER BY grp = ? LIMIT 1",
        (topic, group, NO_GROUP, NO_GROUP),
    ).fetchall()
    if not rows:
        return TopicDepth()
    lane = rows[0][0]
    waiting, delayed, running = connection.execute(
        """SELECT count(*) FILTER (WHERE state = 0 AND due <= ?), count(*) FILTER (WHERE state = 0 AND due > ?),
            count(*) FILTER (WHERE state = 1) FROM nova_messages WHERE lane = ?""",
        (now_ms, now_ms, lane),
    ).fetchone()
    return TopicDepth(waiting, delayed, running, _by_target(connection, lane) if topic.endswith(_DEAD) else {})


def _by_target(connection: sqlite3.Connection, lane: int) -> dict[str, int]:
    rows = connection.execute(
        """SELECT json_extract(CAST(headers AS TEXT), ?) AS target, count(*) FROM nova_messages
        WHERE lane = ? GROUP BY 1 HAVING target IS NOT NULL""",
        (f'$."{TARGET}"', lane),
    )
    return dict(rows.fetchall())


def _fresh_lanes(connection: sqlite3.Connection, topic: str) -> list[int]:
    return _registered(connection, topic) or [lane_id(connection, topic, NO_GROUP)]


def _registered(connection: sqlite3.Connection, topic: str) -> list[int]:
    query = "SELECT id FROM nova_lanes WHERE topic = ? AND registered = 1 ORDER BY id"
    return [row[0] for row in connection.execute(query, (topic,)).fetchall()]


def _merge_unclaimed(connection: sqlite3.Connection, topic: str, group: str) -> None:
    """Move rows out of the lane of nobody where the group had an unregistered lane of its own already."""
    query = "SELECT id FROM nova_lanes WHERE topic = ? AND grp = ?"
    unclaimed = connection.execute(query, (topic, NO_GROUP)).fetchone()
    if unclaimed is not None:
        lane = lane_id(connection, topic, group)
        connection.execute("UPDATE nova_messages SET lane = ? WHERE lane = ?", (lane, unclaimed[0]))


def _insert_rows(connection: sqlite3.Connection, values: list[int | bytes]) -> None:
    start, left = 0, len(values) // _COLUMNS
    for size in _CHUNKS:
        while left >= size:
            end = start + size * _COLUMNS
            connection.execute(_INSERTS[size], values[start:end])
            start, left = end, left - size


def _as_json(claims: Sequence[Claim]) -> str:
    return _dump(claims).decode()


_dump = msgspec.json.encode
encode_headers = msgspec.json.Encoder().encode
decode_headers = msgspec.json.Decoder(dict[str, str]).decode
_CLAIMED = "(id, claim) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))"
_INSERTS = {
    size: "INSERT INTO nova_messages (lane, due, stored, headers, body) VALUES " + ", ".join(["(?, ?, ?, ?, ?)"] * size)
    for size in _CHUNKS
}
