"""What a record is to the group that reads it: headers are read once for neighbours that share them, and never shared."""

from __future__ import annotations

from confluent_kafka import Message

from nova.brokers.kafka.partition import KafkaDelivery, Partition
from nova.brokers.kafka.reading import RecordReader
from nova.brokers.kafka.receiving import PumpOptions
from nova.brokers.kafka.records import DEATHS, SENT
from nova.envelope import without_id

TOPIC = "T_PRIORITY_NORMAL"
PLAIN = {"task_type": "mail", "nova": "1 json 1700000000000"}
REGISTERED_MS = 1_700_000_000_000


def record(key: str | None, headers: dict[str, str], body: bytes | None = b"{}") -> Message:
    raw: list[tuple[str, str | bytes | None]] = [(name, value.encode()) for name, value in headers.items()]
    return Message(topic=TOPIC, key=None if key is None else key.encode(), value=body, headers=raw, timestamp=(1, 1234))


def reader(group: str | None = "mine") -> RecordReader:
    options = PumpOptions(
        name="test", where="nowhere", settings={}, topics=[TOPIC], group=group, since_ms={TOPIC: REGISTERED_MS}
    )
    return RecordReader(options)


def read(reader: RecordReader, *records: Message) -> list[KafkaDelivery | None]:
    partition = Partition(TOPIC, 0, TOPIC, None, charged=False, watchful=True, owner=1)
    return [reader.read(partition, offset, record) for offset, record in enumerate(records)]


def task(task_id: str, **others: str) -> Message:
    return record(task_id, without_id({**PLAIN, "nova-id": task_id, **others}, task_id))


def test_neighbours_share_their_headers_and_have_their_own_ids() -> None:
    first, second = read(reader(), task("a"), task("b"))
    assert first is not None
    assert second is not None
    assert first.headers == PLAIN
    assert second.headers is first.headers, "one object, so that a worker reads it once"
    assert (first.id, second.id) == ("a", "b")
    assert (first.timestamp_ms, first.offset, second.offset) == (1234, 0, 1)


def test_each_record_is_read_by_its_own_headers_whatever_came_before() -> None:
    plain, other, again = read(reader(), task("a"), task("b", **{"nova-attempt": "2"}), task("c"))
    assert plain is not None
    assert other is not None
    assert again is not None
    assert "nova-attempt" not in plain.headers
    assert other.headers["nova-attempt"] == "2"
    assert "nova-attempt" not in again.headers


def test_what_is_addressed_to_another_group_or_older_than_this_one_is_passed_over() -> None:
    young, old = str(REGISTERED_MS), str(REGISTERED_MS - 1)
    found = read(
        reader(),
        task("a", **{"nova-group": "mine"}),
        task("b", **{"nova-group": "other"}),
        task("c", **{SENT: young}),
        task("d", **{SENT: old}),
        record("e", PLAIN, None),
        task("f"),
    )
    assert [one.task_id if one else None for one in found] == ["a", None, "c", None, None, "f"]
    assert all(SENT not in one.headers for one in found if one)


def test_a_task_keyed_by_something_else_keeps_its_id_and_its_deaths_are_no_header() -> None:
    headers = without_id({**PLAIN, "nova-id": "t1"}, "tenant")
    (found,) = read(reader(), record("tenant", {**headers, DEATHS: "2"}))
    assert found is not None
    assert (found.headers["nova-id"], found.id, found.deaths) == ("t1", None, 2)
    assert DEATHS not in found.headers


def test_a_reader_for_no_group_takes_every_record_with_its_headers_as_they_are() -> None:
    (found,) = read(reader(None), record("k", {"nova-group": "other", SENT: "1"}))
    assert found is not None
    assert found.headers == {"nova-group": "other", SENT: "1"}


def test_records_of_other_producers_are_read_too() -> None:
    strange, bare = read(reader(), record(None, {"x": "ü"}), Message(topic=TOPIC, value=b"x", timestamp=(0, -1)))
    assert strange is not None
    assert bare is not None
    assert strange.headers == {"x": "ü"}
    assert bare.headers == {}


def test_an_empty_key_says_no_id() -> None:
    """Nor may it take one from a neighbour with the same headers."""
    first, empty = read(reader(), task("a"), record("", PLAIN))
    assert first is not None
    assert empty is not None
    assert empty.headers is first.headers
    assert empty.id is None


def test_what_is_lent_again_is_the_same_task() -> None:
    (found,) = read(reader(), task("a"))
    assert found is not None
    assert found.again().task_id == "a"


def test_the_same_headers_in_another_topic_are_read_anew() -> None:
    """A group may have registered there at another time."""
    made = reader()
    here, there = (
        Partition(topic, 0, topic, None, charged=False, watchful=True, owner=1) for topic in (TOPIC, "T_PRIORITY_LOW")
    )
    old = task("a", **{SENT: str(REGISTERED_MS - 1)})
    assert made.read(here, 0, old) is None
    assert made.read(there, 0, old) is not None


def test_only_a_task_of_nova_leaves_its_id_to_the_key() -> None:
    """Nobody would look for it there otherwise."""
    assert without_id({"nova-id": "k"}, "k") == {"nova-id": "k"}
    assert without_id({**PLAIN, "nova-id": "k"}, "k") == PLAIN
