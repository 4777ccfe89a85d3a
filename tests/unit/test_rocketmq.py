"""The pure parts of the RocketMQ driver, and what its options refuse."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova import BrokerUnavailable, ConfigError, TaskQueue, with_retry, with_rocketmq
from nova.brokers.base import Delivery, Message
from nova.brokers.rocketmq.admin import loads
from nova.brokers.rocketmq.channels import Channels
from nova.brokers.rocketmq.client import renewed_receipt
from nova.brokers.rocketmq.config import Node, RocketMQConfig
from nova.brokers.rocketmq.consumer import Consumer
from nova.brokers.rocketmq.failures import failure_of_call, failure_of_status
from nova.brokers.rocketmq.finished import Finished
from nova.brokers.rocketmq.leases import APART, Leases, renewed_for_ms
from nova.brokers.rocketmq.log_format import read_messages
from nova.brokers.rocketmq.messages import (
    FOR,
    Outgoing,
    Place,
    as_outgoing,
    copy_back,
    deliver,
    new_id,
    released,
    request_of,
)
from nova.brokers.rocketmq.names import Names
from nova.brokers.rocketmq.remoting import Remoting
from nova.brokers.rocketmq.stubs import definition, service
from nova.config import from_url
from nova.options import settle

NAMES = Names("SHOP")
NOW = 1_700_000_000_000
GUARD, LONGEST = 1500, 86_340_000

names_of_headers = st.text(min_size=1, max_size=12).filter(lambda name: not name.startswith("nova-x-"))
texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=30)


def outgoing(message: Message, longest: int = LONGEST) -> Outgoing:
    return as_outgoing(message, NAMES, NOW, GUARD, longest)


@given(st.dictionaries(names_of_headers, texts, max_size=6), st.binary(max_size=50), texts)
def test_any_message_comes_out_as_it_went_in(headers: dict[str, str], body: bytes, id_: str) -> None:
    sent = request_of([outgoing(Message("t", body, headers, id_))]).messages[0]
    assert sent.body, "the proxy refuses an empty one"
    for name, text in sent.user_properties.items():
        assert text.isprintable(), "the proxy refuses control characters"
        assert text
        assert name == name.lower()
    got = deliver(sent, "t", "t", 0.0)
    assert (got.body, dict(got.headers)) == (body, headers)


@given(
    st.dictionaries(names_of_headers, st.integers(0, 20_000), max_size=6),
    st.binary(max_size=50),
    st.sampled_from("xé\n"),
)
def test_headers_of_any_length_come_out_as_they_went_in(lengths: dict[str, int], body: bytes, letter: str) -> None:
    headers = {name: letter * length for name, length in lengths.items()}
    sent = request_of([outgoing(Message("t", body, headers, "id"))]).messages[0]
    assert sum(len(name.encode()) + len(text.encode()) for name, text in sent.user_properties.items()) < 16_384
    got = deliver(sent, "t", "t", 0.0)
    assert (got.body, dict(got.headers)) == (body, headers)


@pytest.mark.parametrize("length", ["x", "-1", "9" * 5000, "7", "3", "0"])
def test_a_strange_length_of_headers_harms_nothing(length: str) -> None:
    sent = request_of([outgoing(Message("t", b"[1,2]", {"a": "b"}, "id"))]).messages[0]
    sent.user_properties["nova-x-before"] = length
    assert dict(deliver(sent, "t", "t", 0.0).headers) == {"a": "b"}


@given(st.integers(1, 400 * 86_400_000))
def test_a_delayed_message_is_asked_for_before_it_is_due_and_never_beyond_the_longest(delay: int) -> None:
    sent = outgoing(Message("SHOP-q", b"x", {}, "t", due_ms=NOW + delay))
    assert sent.topic == "SHOP_DELAY_0"
    assert sent.deliver_ms is not None
    assert sent.deliver_ms < NOW + delay
    assert sent.deliver_ms <= NOW + LONGEST


@given(st.integers(1, 400 * 86_400_000))
def test_hops_end_at_the_target_when_it_is_due_with_its_address(delay: int) -> None:
    now, due = NOW, NOW + delay
    message = outgoing(Message("SHOP-q", b"x", {"h": "1"}, "t", due_ms=due, group="g"))
    hops = 0
    while message.topic == "SHOP_DELAY_0":
        assert message.deliver_ms is not None
        now = max(now, message.deliver_ms)
        if due <= now + 2 * GUARD:
            now = due  # it is held here
        hops += 1
        next_ = released(
            NAMES, deliver(request_of([message]).messages[0], message.topic, message.topic, 0.0), now, GUARD, LONGEST
        )
        assert next_ is not None
        message = next_
    assert now == due
    assert hops <= delay // (LONGEST - 2 * GUARD) + 2
    assert (message.topic, message.deliver_ms) == ("SHOP-q", None)
    assert message.headers["h"] == "1"
    assert message.headers[FOR] == "g"


def test_a_copy_that_is_given_back_is_for_one_group_and_keeps_its_count() -> None:
    sent = request_of([outgoing(Message("SHOP-q", b"", {"h": "1"}, "t"))]).messages[0]
    for deaths in (0, 1, 2):
        sent.system_properties.delivery_attempt = deaths + 1
        delivery = deliver(sent, "SHOP-q", "SHOP-q", 0.0)
        copy = request_of([copy_back(delivery, "g")]).messages[0]
        again = deliver(copy, "SHOP-q", "SHOP-q", 0.0)
        assert again.handle.count == deaths
        assert again.handle.headers[FOR] == "g"
        assert (again.body, dict(again.headers)) == (b"", {"h": "1"})
        assert not again.suspect


def test_the_third_return_makes_a_suspect() -> None:
    sent = request_of([outgoing(Message("SHOP-q", b"x", {}, "t"))]).messages[0]
    suspects = []
    for attempt in range(1, 6):
        sent.system_properties.delivery_attempt = attempt
        suspects.append(deliver(sent, "SHOP-q", "SHOP-q", 0.0).suspect)
    assert suspects == [False, False, False, True, True]


@given(st.floats(0, 1e6), st.floats(-1e3, 1e5), st.floats(1, 43_200))
def test_a_renewed_lease_never_ends_when_it_would_have_ended_anyway(now: float, left: float, lease: float) -> None:
    until = now + left
    assert now + renewed_for_ms(until, now, lease) / 1000 >= until + APART - 0.001


def test_the_receipt_of_a_renewed_lease_names_its_own_place() -> None:
    wrong = "0 1795282625157 12000 2 0 broker-a 1 7 0 0"
    assert renewed_receipt(wrong) == "7 1795282625157 12000 2 0 broker-a 1 7 0 0"
    assert renewed_receipt("something else") == "something else"


def test_groups_of_different_prefixes_never_share_a_retry_topic() -> None:
    a, b = Names("b_c"), Names("c")
    assert set(a.retry_topics(a.consumer_group("a"), "b_c_DEAD")).isdisjoint(
        b.retry_topics(b.consumer_group("a_b"), "c_DEAD")
    )
    assert a.group_of(a.consumer_group("g")) == "g"
    assert b.group_of(a.consumer_group("g")) is None
    assert [NAMES.group_of(name) for name in (NAMES.forwarder, NAMES.ended, NAMES.registering, "CID_X")] == [None] * 4


def test_numbers_as_keys_are_read() -> None:
    assert loads(b'{"offsetTable":{"t@g":{0:5,1000000:17}}}') == {"offsetTable": {"t@g": {"0": 5, "1000000": 17}}}


@pytest.mark.parametrize(("magic", "width"), [(-626843481, 1), (-626843477, 2)])
def test_a_log_is_read_up_to_what_is_cut_off(magic: int, width: int) -> None:
    properties = b"KEYS\x01k\x02nova-id\x01t1"
    tail = struct.pack(">q", 5) + bytes(8) + struct.pack(">i", 0) + struct.pack(">q", 0) + struct.pack(">i", 3) + b"abc"
    tail += (4).to_bytes(width, "big") + b"SHOP" + struct.pack(">H", len(properties)) + properties
    head = struct.pack(">iiiiqqiq", magic, 0, 2, 0, 9, 100, 0, 4) + bytes(8)
    whole = struct.pack(">i", 4 + len(head) + len(tail)) + head + tail
    (found,) = read_messages(whole + whole[:20])
    assert (found.queue, found.offset, found.stored_ms, found.body) == (2, 9, 5, b"abc")
    assert found.properties == {"KEYS": "k", "nova-id": "t1"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"endpoints": ""}, "endpoints"),
        ({"endpoints": "a:1:2"}, "a:1:2"),
        ({"endpoints": "user:pw@a:1"}, "access_key"),
        ({"endpoints": "a", "admin": "b:99999"}, "b:99999"),
        ({"endpoints": "a", "access_key": "x"}, "belong together"),
        ({"endpoints": "a", "consumer_model": "broadcasting"}, "group_id of its own"),
        ({"endpoints": "a", "consumer_model": "pull"}, "clustering"),
        ({"endpoints": "a", "invisible_duration": 1.0}, "invisible_duration"),
        ({"endpoints": "a", "max_reconsume_times": -1}, "max_reconsume_times"),
        ({"endpoints": "a", "request_timeout": 60}, "request_timeout"),
        ({"endpoints": "a", "queues_per_topic": 0}, "queues_per_topic"),
        ({"endpoints": "a", "tls": "yes"}, "tls"),
        ({"endpoints": "a", "ca_file": "ca.pem"}, "(ca_file): needs tls=True"),
        ({"endpoints": "a", "tls": True, "ca_file": ""}, "ca_file"),
        ({"endpoints": "a", "max_body_bytes": 0}, "max_body_bytes"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_rocketmq(**options)  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert "pw" not in str(caught.value)


def test_addresses_have_their_usual_ports() -> None:
    config = RocketMQConfig(endpoints="a, [::1]:9")
    assert config.nodes == (Node("a", 8081), Node("::1", 9))
    assert config.name_servers == (Node("a", 9876),)
    assert RocketMQConfig(endpoints="a", admin="").name_servers == ()
    assert RocketMQConfig(endpoints="a", admin="b;c:1").name_servers == (Node("b", 9876), Node("c", 1))


@pytest.mark.parametrize(
    ("name", "words"), [("none.pem", "No such file"), ("empty.pem", "no certificate"), (".", "Is a directory")]
)
def test_a_file_of_authorities_that_cannot_be_used_is_one_error(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty.pem").touch()
    config = RocketMQConfig(endpoints="a", tls=True, ca_file=str(tmp_path / name))
    with pytest.raises(ConfigError, match=rf"with_rocketmq\(ca_file\): .*{words}"):
        Channels(config, "rocketmq at a")


def test_reconsume_times_are_the_retries_of_the_policy() -> None:
    assert settle([with_rocketmq("a", max_reconsume_times=7)]).retry.max_retries == 7
    with pytest.raises(ConfigError, match="keep one"):
        TaskQueue(with_rocketmq("a", max_reconsume_times=7), with_retry())


def test_a_url_says_the_same() -> None:
    given_ = settle(
        from_url("rocketmq://key:s%40crt@a:1,b:2?admin=n:3&tls=true&ca_file=/etc/ca.pem&invisible_duration=30")
    )
    assert given_.driver == RocketMQConfig(
        endpoints="a:1,b:2",
        admin="n:3",
        access_key="key",
        secret_key="s@crt",
        tls=True,
        ca_file="/etc/ca.pem",
        invisible_duration=30.0,
    )
    assert "s@crt" not in repr(given_.driver)


class _Ended(grpc.RpcError, grpc.Call):  # type: ignore[misc]  # grpc has no types
    """A call that ended without an answer."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._said = code, details

    def code(self) -> grpc.StatusCode:
        return self._said[0]

    def details(self) -> str:
        return self._said[1]


_UNBUILT = {name: (lambda self, *args: None) for name in _Ended.__abstractmethods__}
Ended = type("Ended", (_Ended,), _UNBUILT)


@pytest.mark.parametrize(
    ("code", "details", "may_be_done", "mends"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses; last error: Connection refused", False, True),
        ("UNAVAILABLE", "failed to connect to all addresses; SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED", False, False),
        ("UNAVAILABLE", "DNS resolution failed for nova.invalid:8081", False, True),
        ("UNAVAILABLE", "Socket closed", True, True),
        ("UNAVAILABLE", "recvmsg:No route to host", True, True),
        ("UNAVAILABLE", "recvmsg:Connection refused", True, True),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", True, True),
        ("CANCELLED", "Channel closed!", True, True),
        ("INTERNAL", "Received RST_STREAM with error code 2", True, True),
        ("UNKNOWN", "Stream removed", True, True),
        ("RESOURCE_EXHAUSTED", "gRPC message exceeds maximum size", False, False),
        ("UNIMPLEMENTED", "Method not found", False, False),
    ],
)
def test_only_what_surely_was_not_done_is_told_as_failed(
    code: str, details: str, may_be_done: bool, mends: bool
) -> None:
    found = failure_of_call(Ended(grpc.StatusCode[code], details))
    assert (found.may_be_done, found.mends) == (may_be_done, mends)


@pytest.mark.parametrize(
    ("code", "may_be_stored"),
    [
        ("HA_NOT_AVAILABLE", True),  # the master has it
        ("SLAVE_PERSISTENCE_TIMEOUT", True),
        ("MASTER_PERSISTENCE_TIMEOUT", True),
        ("PROXY_TIMEOUT", True),
        ("INTERNAL_SERVER_ERROR", True),
        ("TOO_MANY_REQUESTS", False),
        ("TOPIC_NOT_FOUND", False),
        ("MESSAGE_BODY_TOO_LARGE", False),
    ],
)
def test_a_refusal_that_follows_storing_is_unknown(code: str, may_be_stored: bool) -> None:
    found = failure_of_status(definition.Status(code=definition.Code.Value(code), message="no"))
    assert found is not None
    assert found.as_publish_error("here").may_be_stored == may_be_stored


@pytest.mark.parametrize(
    "said",
    [
        b"\xff\xff\xff\xff....",
        b"\0\0\0\2ab",
        b"\0\0\0\x08\0\0\0\4abcd",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH",
    ],
)
def test_a_port_that_speaks_another_protocol_is_said_at_once(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].sendall(said), name="stranger", daemon=True).start()
        link = Remoting(f"127.0.0.1:{listener.getsockname()[1]}", None, 5.0)
        begin = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="no RocketMQ server"):
            link.call(17)
        assert time.monotonic() - begin < 2.0


def place(message_id: str, id_: str) -> Place:
    return Place("t", "receipt", message_id, 0.0, 0, {}, id_)


def test_what_was_finished_is_known_by_both_ids_for_so_many_more() -> None:
    finished = Finished(most=10)
    finished.add([place("M1", "a"), place("M2", "")])
    assert place("M1", "a") in finished
    assert place("M1", "b") not in finished, "an older client gives one id to several messages"
    assert place("M2", "") not in finished, "a message without a key has one id only"
    finished.add([place(f"N{number}", "n") for number in range(10)])
    assert place("M1", "a") in finished
    finished.add([place(f"O{number}", "o") for number in range(10)])
    assert place("M1", "a") not in finished, "it grows without end"
    assert place("O0", "o") in finished


def test_what_is_settled_while_it_is_renewed_is_acked_with_the_new_receipt() -> None:
    """The server takes no notice of an ack with the one from before."""
    calls: list[Future[Any]] = []

    def start(*request: object) -> Future[Any]:
        calls.append(Future())
        return calls[-1]

    consumer = SimpleNamespace(connection=SimpleNamespace(start=start), group="g", request_timeout=3.0, client_id="c")
    acked: list[str] = []
    leases = Leases(cast(Consumer, consumer), 3.0, lambda place: acked.append(place.receipt))
    held = Delivery("t", b"", {}, Place("t", "old", "M1", time.monotonic() + 1.0, 0, {}, "a"))
    leases.hold([held])
    leases.look()
    assert leases.settled(leases.take([held])) == []
    assert acked == []
    ok = definition.Status(code=definition.Code.OK)
    calls[0].set_result(service.ChangeInvisibleDurationResponse(status=ok, receipt_handle="new"))
    assert acked == ["new"]


def test_messages_of_one_topic_share_nothing_but_what_they_have_in_common() -> None:
    timed = Outgoing("t", b"1", {"a": "1"}, "first", 1_800_000_000_123, new_id())
    plain = Outgoing("t", b"2", {"b": "2"}, "second", None, new_id())
    first, second = request_of([timed, plain]).messages
    assert first.system_properties.message_type == definition.MessageType.DELAY
    assert first.system_properties.delivery_timestamp.ToMilliseconds() == 1_800_000_000_123
    assert second.system_properties.message_type == definition.MessageType.NORMAL
    assert not second.system_properties.HasField("delivery_timestamp")
    assert (first.topic.name, second.topic.name) == ("t", "t")
    assert (dict(second.user_properties), list(second.system_properties.keys)) == ({"b": "2"}, ["second"])


def test_no_two_messages_have_the_same_id() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert len(set(ids)) == 10_000
    assert {re.fullmatch("[0-9A-F]{32}", id_) is not None for id_ in ids} == {True}
