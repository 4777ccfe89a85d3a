"""The pure parts of the RabbitMQ driver: options, the way through the delay levels, acks, the book of groups, messages."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties

from nova import ConfigError, TaskQueue, with_rabbitmq
from nova.brokers.base import Message
from nova.brokers.rabbitmq.ackbook import AckBook
from nova.brokers.rabbitmq.config import Node, RabbitMQConfig
from nova.brokers.rabbitmq.delay_levels import BOTTOM, TOP, Level, levels, pick
from nova.brokers.rabbitmq.messages import Outgoing, Place, as_outgoing, copy_back, deliver, named, released
from nova.brokers.rabbitmq.names import Names
from nova.brokers.rabbitmq.registry import Book

NAMES = Names("SHOP", "SHOP-exchange")
YEAR = 365 * 86_400_000


# --- options


@pytest.mark.parametrize(
    ("url", "nodes", "vhost", "user"),
    [
        ("amqp://host", [("host", 5672)], "/", ("guest", "guest")),
        ("amqps://host/", [("host", 5671)], "/", ("guest", "guest")),
        ("amqp://u:p%40%2F@a:1,b:2/shop%2Feu", [("a", 1), ("b", 2)], "shop/eu", ("u", "p@/")),
        ("amqp://u:@[::1]:7/v", [("::1", 7)], "v", ("u", "")),
    ],
)
def test_a_url_says_nodes_vhost_and_user(
    url: str, nodes: list[tuple[str, int]], vhost: str, user: tuple[str, str]
) -> None:
    address = RabbitMQConfig(url=url).address
    assert list(address.nodes) == [Node(*node) for node in nodes]
    assert (address.vhost, (address.username, address.password)) == (vhost, user)
    assert address.tls == url.startswith("amqps")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"prefetch": 65_536}, "prefetch"),
        ({"confirm_timeout": 21.0}, "1 to 20 seconds"),
        ({"blocked_timeout": 0.0}, "blocked_timeout"),
        ({"heartbeat": 0.5}, "heartbeat"),
        ({"exchange": "amq.topic"}, "'amq.'"),
        ({"ca_file": "x"}, "amqps://"),
        ({"go_compatible": 1}, "true or false"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        with_rabbitmq("amqp://host", **options)  # type: ignore[arg-type]


def test_certificate_and_key_belong_together() -> None:
    with pytest.raises(ConfigError, match="cert_file and key_file belong together"):
        with_rabbitmq("amqps://host", cert_file="x")


def test_no_text_of_a_config_shows_a_password() -> None:
    config = RabbitMQConfig(url="amqp://user:secret@host/v")
    assert "secret" not in repr(config) + repr(config.address) + config.address.shown


def test_a_url_of_a_queue_takes_the_driver_options_in_its_query() -> None:
    q = TaskQueue.from_url("amqp://u:p@host:5672/v?group_id=billing&prefetch=7&go_compatible=true")
    config = q._settings.driver
    assert isinstance(config, RabbitMQConfig)
    assert (config.url, config.prefetch, config.go_compatible) == ("amqp://u:p@host:5672/v", 7, True)
    with pytest.raises(ConfigError, match="did you mean 'prefetch'"):
        TaskQueue.from_url("amqp://host?prefech=7")


# --- delay levels


@given(remaining_ms=st.integers(0, 20 * YEAR), guard_ms=st.sampled_from([0, 64, 512, 5000]))
def test_the_levels_hold_for_the_delay_less_the_guard_and_never_longer(remaining_ms: int, guard_ms: int) -> None:
    path = pick("SHOP", remaining_ms, guard_ms)
    if path is None:
        assert remaining_ms - guard_ms < 1 << BOTTOM
        return
    *bits, prefix = path.routing_key.split(".")
    assert prefix == "SHOP"
    assert len(bits) == len(levels())
    held = 0
    entered = False
    for level, bit in zip(reversed(levels()), bits, strict=True):
        entered = entered or level.name == path.exchange
        assert entered or bit == "0", "a level above the entry would never be passed"
        held += level.hold_ms * int(bit)
    longest = (1 << (TOP + 1)) - (1 << BOTTOM)
    assert held <= remaining_ms - guard_ms
    assert held == longest or remaining_ms - guard_ms - held < 1 << BOTTOM


def test_each_level_leads_to_the_next_lower_one() -> None:
    below = [level.below for level in levels()]
    assert below[1:] == [level.name for level in levels()[:-1]]
    assert len(Level(TOP).pattern(1).split(".")) == 2
    assert Level(BOTTOM).pattern(0).count("*") == TOP - BOTTOM


def test_routing_keys_fit_into_255_bytes() -> None:
    path = pick("P" * 50, 8 * YEAR, 512)
    assert path is not None
    assert len(path.routing_key) <= 255


# --- acks


@given(st.data())
def test_every_delivery_is_acked_once_and_no_other(data: st.DataObject) -> None:
    book, held, acked = AckBook(), set[int](), set[int]()
    tags = itertools.count(1)
    for _ in range(data.draw(st.integers(1, 12))):
        for _ in range(data.draw(st.integers(0, 5))):
            tag = next(tags)
            book.came(tag)
            held.add(tag)
        done = data.draw(st.sets(st.sampled_from(sorted(held)))) if held else set[int]()
        through, singles = book.settle(done)
        now = set(singles)
        if through is not None:
            assert through in held, "the server closes the channel over a tag that it knows no more"
            now |= {tag for tag in held if tag <= through}
        assert now == done
        assert not now & acked
        acked |= now
        held -= now
        assert len(book) == len(held)


def test_only_what_is_held_is_taken_to_be_returned() -> None:
    """The server closes the channel over a tag that it knows no more."""
    book = AckBook()
    for tag in (1, 2, 3):
        book.came(tag)
    assert book.settle([1]) == (1, [])
    assert book.take([1, 2, 7]) == {2}
    assert book.settle([3]) == (3, [])
    assert len(book) == 0


# --- the book of groups


def test_the_first_group_of_a_topic_gets_everything_and_later_ones_what_comes_after() -> None:
    book = Book()
    assert book.register("a", ["x", "y"], 100)
    assert book.register("b", ["x"], 200)
    assert not book.register("a", ["x"], 300)
    assert book.groups == {"a": {"x": 0, "y": 0}, "b": {"x": 200}}
    assert book.readers("x") == ["a", "b"]


def test_after_the_last_group_the_next_first_one_begins_where_that_ended() -> None:
    book = Book()
    book.register("a", ["x"], 100)
    book.register("b", ["x"], 200)
    assert book.remove("a", 300)
    assert book.readers("x") == ["b"]
    assert book.remove("b", 400)
    assert not book.remove("b", 400)
    book.register("c", ["x"], 500)
    assert book.groups == {"c": {"x": 400}}


def test_what_is_kept_for_a_group_that_reads_nothing_is_known() -> None:
    book = Book()
    assert book.keep("a", "dead")
    assert not book.keep("a", "dead")
    assert book.queues("a") == ["dead"]
    assert book.readers("dead") == []
    assert book.remove("a", 1)


def test_two_books_of_one_version_lose_no_group() -> None:
    first, second = Book(version=3), Book(version=3)
    for book in (first, second):
        book.register("a", ["x"], 100)
    first.register("b", ["x"], 200)
    second.register("c", ["x"], 300)
    second.keep("c", "dead")
    assert second.remove("a", 400)
    first.merge(second)
    assert first.groups == {"a": {"x": 0}, "b": {"x": 200}, "c": {"x": 300}}
    assert first.kept == {"c": ["dead"]}
    assert first.removed == {}


def test_a_removal_is_remembered_until_the_group_comes_back() -> None:
    book = Book()
    book.register("a", ["x"], 100)
    assert book.remove("a", 200)
    assert book.removed == {"a": 200}
    book.register("a", ["x"], 300)
    assert book.removed == {}


# --- messages


def test_a_message_for_all_goes_to_the_exchange_and_a_copy_to_its_group() -> None:
    fresh = as_outgoing(Message("SHOP-mail", b"x", {"nova-id": "t"}, "t"), NAMES, 0, 512)
    copy = as_outgoing(Message("SHOP-mail", b"x", {"nova-id": "t"}, "t", group="g"), NAMES, 0, 512)
    assert (fresh.exchange, fresh.key, fresh.topic) == ("SHOP-exchange", "SHOP-mail", "SHOP-mail")
    assert (copy.exchange, copy.key, copy.topic) == ("", "g.SHOP-mail", "")
    assert copy.headers["nova-group"] == "g"


@given(delay_ms=st.integers(1, 30 * YEAR), group=st.sampled_from([None, "g"]))
def test_a_delayed_message_arrives_where_it_was_sent_after_any_number_of_turns(
    delay_ms: int, group: str | None
) -> None:
    now_ms = 1_000_000
    message = Message("SHOP-mail", b"x", {"nova-id": "t"}, "t", due_ms=now_ms + delay_ms, group=group)
    outgoing = as_outgoing(message, NAMES, now_ms, 512)
    for _ in range(10):
        if outgoing.key == "g.SHOP-mail" or outgoing.exchange == "SHOP-exchange":
            break
        held = sum(
            level.hold_ms * int(bit)
            for level, bit in zip(reversed(levels()), outgoing.key.split("."), strict=False)
            if outgoing.exchange
        )
        now_ms += held if held else max(0, message.due_ms - now_ms)  # type: ignore[operator]
        found = released(NAMES, outgoing.body, outgoing.headers, outgoing.id, now_ms, 512)
        assert found is not None
        outgoing = found
    assert outgoing.key == ("SHOP-mail" if group is None else "g.SHOP-mail")
    assert now_ms >= 1_000_000 + delay_ms
    assert {name for name in outgoing.headers if name.startswith("nova-x-")} == {"nova-x-sent"}


def test_what_is_given_back_keeps_its_count_and_loses_what_the_server_wrote() -> None:
    headers: dict[str, Any] = {
        "nova-id": "t",
        "nova-x-sent": "5",
        "nova-x-count": "1",
        "x-delivery-count": 2,
        "x-death": [{"reason": "expired"}],
        "x-first-death-queue": "nova_delay_v1_06",
        "x": "mine",
    }
    delivery = deliver("SHOP-mail", "g.SHOP-mail", 1, 7, BasicProperties(headers=headers, message_id="t"), b"x")
    assert delivery.headers == {"nova-id": "t", "x": "mine"}
    assert delivery.suspect
    place: Place = delivery.handle
    assert place.count == 3
    copy = copy_back(delivery, "g.SHOP-mail")
    assert copy.headers == {"nova-id": "t", "x": "mine", "nova-x-sent": "5", "nova-x-count": "3"}


@given(
    st.sampled_from(["", "t", "ü" * 127 + "x", "ü" * 128, "x" * 300]),
    st.dictionaries(st.sampled_from(["nova", "task_type", "x"]), st.text(max_size=5)),
    st.sampled_from([None, "same", "other"]),
)
def test_whatever_the_id_its_headers_arrive_as_they_were_sent(
    id: str, headers: dict[str, str], said: str | None
) -> None:
    """It travels in the message id alone where that can hold it: the header and the property would say it twice."""
    if said is not None and id:
        headers["nova-id"] = id if said == "same" else said
    if "nova" in headers and id:
        headers.setdefault("nova-id", id)  # as every task of Nova's
    sent, message_id = named(Outgoing("e", "k", b"", headers, id))
    assert len(message_id.encode()) <= 255
    assert ("nova-id" in sent) == ("nova-id" in headers and not (message_id and "nova" in headers and said != "other"))
    properties = BasicProperties(headers=dict(sent), message_id=message_id or None)
    assert deliver("T", "g.T", 1, 1, properties, b"").headers == headers


def test_no_two_groups_of_any_prefixes_share_a_queue() -> None:
    first, second = Names("b-c", "e"), Names("c", "e")
    assert first.queue("a", "b-c_PRIORITY_LOW") != second.queue("a-b", "c_PRIORITY_LOW")
    assert first.topic_of("a.b-c_DEAD") == ("a", "b-c_DEAD")
    assert first.topic_of("b-c_DELAY_0") is None
