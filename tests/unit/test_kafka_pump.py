"""The pump's steps on records made by hand: what is read is noted whatever else happens, and what is not read never."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, TopicPartition

from nova.brokers.kafka.failures import text_of
from nova.brokers.kafka.health import Health
from nova.brokers.kafka.offset_map import OffsetMap
from nova.brokers.kafka.partition import KafkaDelivery, Partition
from nova.brokers.kafka.pump import COMMIT_DRAINED, Pump
from nova.brokers.kafka.receiving import PumpOptions
from nova.brokers.kafka.records import raw_headers

TOPIC = "T_PRIORITY_NORMAL"


class Collecting:
    """A receiver with room for so many."""

    def __init__(self, room: int = 1000) -> None:
        self.most = room
        self.got: list[KafkaDelivery] = []

    def room(self) -> int:
        return self.most

    def put(self, deliveries: list[KafkaDelivery]) -> None:
        self.got += deliveries

    def give_away(self, deliveries: list[KafkaDelivery], deadline: float) -> list[KafkaDelivery]:
        raise AssertionError("nothing is given away here")

    def tick(self) -> None: ...


class Scripted:
    """In the place of a consumer: answers in the order given, and notes what is committed."""

    def __init__(self, *answers: Callable[[], list[Message]]) -> None:
        self.answers = list(answers)
        self.committed: list[tuple[int, int]] = []
        self.subscribed = False

    def subscribe(self, topics: list[str], **callbacks: object) -> None:
        del topics, callbacks
        self.subscribed = True

    def consume(self, most: int, timeout: float) -> list[Message]:
        del most, timeout
        return self.answers.pop(0)() if self.answers else []

    def poll(self, timeout: float) -> Message | None:
        del timeout
        found = self.consume(1, 0)
        return found[0] if found else None

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        self.committed += [(place.partition, place.offset) for place in offsets]


def record(offset: int, value: bytes | None = None, *, partition: int = 0) -> Message:
    return Message(
        topic=TOPIC, partition=partition, offset=offset, key=b"k", value=value or b"%d" % offset, timestamp=(1, 1)
    )


def pump(*parts: Partition, room: int = 1000, charged: bool = False) -> tuple[Pump, Collecting]:
    receiver = Collecting(room)
    options = PumpOptions(
        name="n", where="w", settings={"session.timeout.ms": 10_000}, topics=[TOPIC], group="g", charged=charged
    )
    made = Pump(options, receiver)
    for part in parts:
        made._partitions[TOPIC, part.number] = part
    return made, receiver


def at(base: int, number: int = 0, *, charged: bool = False) -> Partition:
    part = Partition(TOPIC, number, TOPIC, OffsetMap(base, base), charged=charged, watchful=False, owner=1)
    part.marked = True
    return part


def test_records_are_lent_in_their_order() -> None:
    made, receiver = pump(at(5), at(0, 1))
    made._take([record(5), record(6), record(0, partition=1), record(7)])
    assert [(d.partition.number, d.offset) for d in receiver.got] == [(0, 5), (0, 6), (1, 0), (0, 7)]


def test_a_topic_made_anew_in_the_middle_of_a_chunk_loses_none_of_its_new_records() -> None:
    """What was read of the old one must neither run nor count as finished in the new one."""
    part = at(100)
    made, receiver = pump(part)
    made._take([record(offset, b"old") for offset in (100, 101)] + [record(0, b"new"), record(1, b"new")])
    assert [(d.offset, d.body) for d in receiver.got] == [(0, b"new"), (1, b"new")]
    made.ack(receiver.got)
    made._take([record(offset, b"new") for offset in range(2, 105)])
    assert [d.offset for d in receiver.got] == list(range(105))


def test_a_topic_made_anew_while_its_first_task_runs_loses_none_either() -> None:
    part = at(0)
    made, receiver = pump(part)
    made._take([record(0, b"old"), record(1, b"old")])
    old = list(receiver.got)
    made._take([record(0, b"new"), record(1, b"new")])
    assert all(delivery.lost for delivery in old)
    made.ack(old)
    assert part.base == 0, "an old task that ends finishes no new one"
    made.ack(receiver.got[2:])
    assert part.base == 2


def test_what_waits_to_be_lent_singly_goes_with_its_topic() -> None:
    part = at(100, charged=True)
    made, receiver = pump(part, room=0, charged=True)
    made._take([record(100, b"old")])
    made._take([record(0, b"new")])
    assert [delivery.body for delivery in made._backlog] == [b"new"]
    assert receiver.got == []


@pytest.mark.parametrize("first", [0, 1], ids=["at once", "after the first record"])
def test_when_reading_fails_nothing_is_taken_for_finished(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of a callback makes the client throw away what it had in hand; the next record comes after a gap."""

    def fails() -> list[Message]:
        raise RuntimeError("in a callback")

    part = at(0)
    made, receiver = pump(part)
    made._consumer = Scripted(*[list] * first, *[lambda: [record(0)]] * first, fails, lambda: [record(7)])  # type: ignore[assignment]
    with pytest.raises(RuntimeError):
        made._step()
    assert part.base == 0
    old, fresh, left = made._consumer, Scripted(), list[object]()
    monkeypatch.setattr(made, "_build", lambda: fresh)
    monkeypatch.setattr("nova.brokers.kafka.pump.abandon_consumer", left.append)
    made._step()
    assert left == [old], "it joins anew before it reads on"
    assert fresh.subscribed
    assert part.over
    assert receiver.got == []
    made._step()
    assert left == [old], "once"


def test_a_drained_partition_is_committed_before_the_next_wait_and_a_busy_one_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("nova.brokers.kafka.pump.time.monotonic", lambda: now[0])
    part = at(0)
    made, receiver = pump(part)
    client = made._consumer = Scripted(lambda: [record(0), record(1)])  # type: ignore[assignment]
    made._last_commit = now[0]
    made._step()
    now[0] += 2 * COMMIT_DRAINED
    made.ack(receiver.got[:1])
    made._step()
    assert client.committed == [], "one runs: no hurry"
    made.ack(receiver.got[1:])
    made._step()
    assert client.committed == [(0, 2)]


def test_no_hurry_while_no_coordinator_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    part = at(0)
    made, receiver = pump(part)
    made._take([record(0)])
    made.ack(receiver.got)
    assert made._has_drained()
    made._commits._refused([TopicPartition(TOPIC, 0, 1)], KafkaError(KafkaError.NOT_COORDINATOR))
    assert not made._has_drained()


class BadName(Message):
    """As the client answers for a header whose name is no UTF-8."""

    def headers(self) -> Any:
        raise SystemError("returned a result with an exception set")


def test_a_header_whose_name_is_no_utf8_leaves_a_record_without_headers() -> None:
    assert raw_headers(BadName()) == ()


def denied(code: int = KafkaError.TOPIC_AUTHORIZATION_FAILED) -> KafkaError:
    return KafkaError(code)


def test_a_refusal_lasts_until_that_very_topic_is_read_or_committed() -> None:
    health = Health("w", "n")
    health.deny(denied(), "a")
    health.deny(denied(), "b")
    health.let_in("c")
    health.let_in(None)
    health.heard()
    assert "topic 'a'" in str(health.trouble)
    health.let_in("a")
    assert "topic 'b'" in str(health.trouble)
    health.let_in("b")
    assert health.trouble is None


def test_a_refusal_of_the_group_ends_when_it_lets_the_consumer_in() -> None:
    health = Health("w", "n")
    health.deny(denied(KafkaError.GROUP_AUTHORIZATION_FAILED))
    health.let_in("a")
    assert health.trouble is not None
    health.let_in(None)
    assert health.trouble is None


@pytest.mark.parametrize(
    "elapsed", ["(after 132ms in state AUTH_REQ)", "(after 0ms in state CONNECT, 5 identical error(s) suppressed)"]
)
def test_the_same_refusal_is_said_once_however_long_each_took(elapsed: str, caplog: pytest.LogCaptureFixture) -> None:
    health = Health("w", "n")
    for again in ("(after 99ms in state AUTH_REQ)", elapsed, ""):
        health.note(KafkaError(KafkaError._AUTHENTICATION, f"b:9092/1: wrong password {again}".rstrip()))
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == ["w: n: b:9092/1: wrong password"]


def test_what_ended_in_the_tls_handshake_is_a_matter_of_tls() -> None:
    """To the client it is a mere disconnect; only the state says where."""
    said = "b:9092/1: Disconnected: closed by peer (after 3ms in state SSL_HANDSHAKE)"
    text = text_of(KafkaError(KafkaError._TRANSPORT, said))
    assert text.startswith("b:9092/1: Disconnected: closed by peer; ")
    assert "that the port speaks TLS" in text
