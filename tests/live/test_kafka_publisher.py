"""Telling stored, refused and unknown apart, message by message, when all share one callback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import Message as KafkaMessage

from nova import BrokerUnavailable
from nova.brokers.base import Message
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.driver import KafkaDriver
from nova.brokers.kafka.names import Place
from nova.brokers.kafka.publisher import Pending, Publisher
from nova.brokers.kafka.records import Record
from nova.brokers.kafka.topics import NEW_FOR
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually
from tests.servers.kafka.relay import RefusingRelay


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = make("kafka", tmp_path_factory.mktemp("kafka"))
    yield made
    made.close()


@pytest.fixture
def publisher(broker: Broker) -> Iterator[Publisher]:
    config = KafkaConfig(bootstrap_servers=broker.section["bootstrap_servers"], delivery_timeout=1.5)
    made = Publisher(config, "kafka here", lambda _: None)
    yield made
    made.close(2)


def test_each_message_gets_its_own_outcome(broker: Broker, publisher: Publisher) -> None:
    topic, missing = f"{broker.prefix}_PRIORITY_NORMAL", f"{broker.prefix}_MISSING"
    broker.driver().ensure([topic])
    records = [
        Record(topic, "a", b"1", {}),
        Record(missing, "b", b"2", {}),
        Record(topic, None, b"", {"h": "x"}),
        Record(missing, None, None, {}),
        Record(topic, "a", b"3", {}),
        Record(topic, "big", bytes(3 << 20), {}),
    ]
    pending = Pending(records, "kafka here")
    publisher.send(pending, records)
    outcome = pending.future.result(10)
    assert [error is None for error in outcome] == [True, False, True, False, True, False]
    assert outcome[5] is not None
    assert not outcome[5].may_be_stored
    assert "kafka here" in str(outcome[5])


def test_messages_that_look_alike_are_unknown_together(broker: Broker, publisher: Publisher) -> None:
    """A copy that failed must not pass for its twin that arrived: the settler would acknowledge its source."""
    missing = f"{broker.prefix}_MISSING"
    records = [Record(missing, "a", b"1", {"nova-attempt": "2"}), Record(missing, "a", b"1", {"nova-attempt": "3"})]
    pending = Pending(records, "kafka here")
    publisher.send(pending, records)
    outcome = pending.future.result(10)
    assert all(error is not None and error.may_be_stored for error in outcome)


def test_look_alikes_that_are_refused_for_good_are_known_as_such() -> None:
    """Or the settler would send both again, for ever."""
    pending = Pending([Record("T", "a", b"1", {}), Record("T", "a", b"1", {})], "kafka here")
    pending.expect(2)
    for _ in range(2):
        pending.report(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), KafkaMessage(topic="T", key=b"a", value=b"1"))
    assert [error is not None and error.is_permanent for error in pending.future.result(0)] == [True, True]


@pytest.mark.own_server
def test_a_server_that_does_not_answer_leaves_it_unknown(tmp_path: Path) -> None:
    own = make("kafka", tmp_path, own_server=True)
    config = KafkaConfig(bootstrap_servers=own.section["bootstrap_servers"], delivery_timeout=1.5)
    publisher = Publisher(config, "kafka here", lambda _: None)
    topic = f"{own.prefix}_PRIORITY_NORMAL"
    own.driver().ensure([topic])
    records = [Record(topic, "a", b"1", {})]
    warm = Pending(records, "kafka here")
    publisher.send(warm, records)
    assert warm.future.result(10) == [None]
    with own.away():
        pending = Pending(records, "kafka here")
        publisher.send(pending, records)
        (error,) = pending.future.result(10)
    assert error is not None
    assert error.may_be_stored, "it was on its way"
    publisher.close(2)
    own.close()


def test_what_was_not_sent_at_close_is_failed_and_nothing_is_left_hanging(broker: Broker) -> None:
    config = KafkaConfig(bootstrap_servers=broker.section["bootstrap_servers"])
    publisher = Publisher(config, "kafka here", lambda _: None)
    records = [Record(f"{broker.prefix}_MISSING", str(n), b"x", {}) for n in range(1000)]
    pending = Pending(records, "kafka here")
    publisher.send(pending, records)
    publisher.close(0.2)
    outcome = pending.future.result(5)
    assert all(error is not None for error in outcome)
    after = Pending(records[:1], "kafka here")
    publisher.send(after, records[:1])
    (error,) = after.future.result(0)
    assert error is not None
    assert "closed" in str(error)
    assert not error.may_be_stored


def test_what_counts_as_stored_only_because_later_records_were_is_unknown(broker: Broker) -> None:
    """KAFKA-15591: the first request of a partition is refused, the second stored, and the client reports both as stored."""
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    driver = broker.driver()
    driver.ensure([topic])
    relay = RefusingRelay(broker.section["bootstrap_servers"])
    publisher = Publisher(KafkaConfig(bootstrap_servers=relay.address, delivery_timeout=5.0), "relay", lambda _: None)
    calls = []
    for call in range(2):
        records = [Record(topic, None, b"%d" % call, {}, partition) for partition in (0, 1)]
        calls.append(Pending(records, "relay"))
        publisher.send(calls[-1], records)
        eventually(lambda: len(relay.held) + relay.refused == 2, what="one request of each partition")
    outcome = [error for call in calls for error in call.future.result(10)]
    publisher.close(2)
    relay.close()
    stored = sum(count.waiting for count in driver.depth([topic], "g").values())
    assert stored < 4, "this server loses nothing: the test shows nothing"
    assert outcome.count(None) == stored
    assert all(error.may_be_stored for error in outcome if error is not None)
    driver.close()


def test_topics_another_process_made_are_used_once_each_leader_has_answered(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    broker.driver().ensure([topic])
    driver = broker.driver()
    assert isinstance(driver, KafkaDriver)
    keeper, record = driver._open_parts.keeper, Record(topic, "a", b"", {})
    real, asked = keeper._offsets.ends, list[Place]()

    def ends(places: Iterable[Place], timeout: float) -> dict[Place, int]:
        assert not keeper.knows_all([record]), "not before"
        assert timeout <= NEW_FOR
        found = real(places, timeout)
        asked.extend(found)
        return found

    monkeypatch.setattr(keeper._offsets, "ends", ends)
    driver.ensure([topic])
    assert sorted(asked) == [(topic, number) for number in range(driver._config.partitions)]
    assert keeper.knows_all([record])


def test_an_older_topic_of_which_a_leader_is_away_is_used_all_the_same(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    topic = f"{broker.prefix}_PRIORITY_NORMAL"
    broker.driver().ensure([topic])
    driver = broker.driver()
    assert isinstance(driver, KafkaDriver)

    def ends(places: object, timeout: float) -> dict[Place, int]:
        raise BrokerUnavailable("the leader of partition 3 is away")

    monkeypatch.setattr(driver._open_parts.keeper._offsets, "ends", ends)
    driver.ensure([topic])
    assert "the leader of partition 3 is away" in caplog.text
    assert driver.publish([Message(topic, b"x", {}, "m")]).result(10) == [None]
