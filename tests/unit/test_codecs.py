"""Codecs: every field of every form survives, foreign bytes are refused, the Go form is fixed to the byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova import ConfigError, DecodeError, EncodeError, Task, TaskQueue, with_codec, with_memory, with_message_format
from nova.clock import SystemClock
from nova.codecs import FORMATS, Codec, find_codec
from nova.enqueue_options import EnqueueSettings
from nova.envelope import Content, read_envelope
from nova.producer import Producer
from nova.routing import Topics

GO_JSON = (
    b'{"task_id":"7b0e2f54-6f0b-4a0e-9d2c-1f6a1f0e3b11_TASKS","task":{"Type":"email.send","Payload":"eyJ0byI6ImFAYi5jIn0="},'
    b'"queue":"TASK_QUEUE_PRIORITY_HIGH","priority":3}'
)
"""What Go's encoding/json writes for a task whose payload is {"to":"a@b.c"}."""

GO_NULL = b'{"task_id":"x_TASKS","task":{"Type":"t","Payload":null},"queue":"TASK_QUEUE_PRIORITY_LOW","priority":1}'
GO_HTML = b'{"task_id":"x","task":{"Type":"a\\u003cb\\u003e\\u0026c","Payload":""},"queue":"q","priority":2}'

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
payloads = st.one_of(st.binary(max_size=300), st.sampled_from([b"", b"\x00", b"\xff" * (1 << 20), "é".encode()]))
contents = st.builds(Content, text, text, payloads, text, st.integers(1, 3))


def headers_of(content: Content) -> dict[str, str]:
    return {
        "nova-id": content.task_id,
        "task_type": content.type,
        "queue": content.topic,
        "priority": str(content.priority),
    }


@pytest.mark.parametrize("name", FORMATS)
@given(content=contents)
def test_every_field_survives_every_codec(name: str, content: Content) -> None:
    codec = find_codec(name)
    assert codec.decode(codec.encode(content), headers_of(content)) == content


@given(content=contents)
def test_json_and_orjson_read_each_other(content: Content) -> None:
    first, second = find_codec("json"), find_codec("orjson")
    assert first.encode(content) == second.encode(content)
    assert first.decode(second.encode(content), {}) == second.decode(first.encode(content), {}) == content


@pytest.mark.parametrize("name", ["json", "orjson", "sonic"])
def test_the_go_form_to_the_byte(name: str) -> None:
    codec = find_codec(name)
    content = Content(
        "7b0e2f54-6f0b-4a0e-9d2c-1f6a1f0e3b11_TASKS", "email.send", b'{"to":"a@b.c"}', "TASK_QUEUE_PRIORITY_HIGH", 3
    )
    assert codec.encode(content) == GO_JSON
    assert codec.decode(GO_JSON, {}) == content
    assert codec.decode(GO_NULL, {}) == Content("x_TASKS", "t", b"", "TASK_QUEUE_PRIORITY_LOW", 1)
    assert codec.decode(GO_HTML, {}).type == "a<b>&c"


@pytest.mark.parametrize("name", ["json", "orjson"])
def test_unknown_keys_are_ignored_and_absent_ones_empty(name: str) -> None:
    codec = find_codec(name)
    body = b'{"new":[1],"task":{"Type":"t","Payload":"AA==","More":{}},"task_id":"x"}'
    assert codec.decode(body, {}) == Content("x", "t", b"\x00", "", 0)


@pytest.mark.parametrize("name", ["json", "orjson", "protobuf"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"task":{"Type":1}}',
        b'{"task":{"Type":"t","Payload":"%%%"}}',
        b'{"task":"x"}',
        b'{"task":{"Type":"t"},"priority":"high"}',
        b'{"task":{"Type":"t","Payload":"AA=="},"task_id":5}',
    ],
)
def test_foreign_bytes_are_a_decode_error(name: str, body: bytes) -> None:
    codec = find_codec(name)
    if name == "protobuf" and body == b"":
        assert codec.decode(body, {}) == Content("", "", b"", "", 0)  # an empty message is a message without fields
        return
    with pytest.raises(DecodeError, match=name):
        codec.decode(body, {})


@pytest.mark.parametrize("name", ["json", "orjson", "protobuf"])
def test_text_that_utf8_cannot_hold_is_an_encode_error(name: str) -> None:
    with pytest.raises(EncodeError):
        find_codec(name).encode(Content("\ud800", "t", b"", "q", 2))


@given(body=st.binary(max_size=200))
@pytest.mark.parametrize("name", ["json", "orjson", "protobuf"])
def test_random_bytes_never_raise_anything_else(name: str, body: bytes) -> None:
    try:
        content = find_codec(name).decode(body, {})
    except DecodeError:
        return
    assert isinstance(content.payload, bytes)


def test_blob_is_the_bare_payload() -> None:
    codec = find_codec("blob")
    content = Content("id", "t", b"\x00raw\xff", "q", 2)
    assert codec.encode(content) == b"\x00raw\xff"
    with pytest.raises(DecodeError, match="priority"):
        codec.decode(b"", {"priority": "high"})


def test_protobuf_bytes_are_fixed() -> None:
    content = Content("id", "t", b"\x01", "q", 3)
    assert find_codec("protobuf").encode(content) == b'\n\x02id\x12\x01t\x1a\x01\x01"\x01q(\x03'


def test_ours_carries_gos_three_headers() -> None:
    producer = Producer(Topics("TASK_QUEUE"), find_codec("json"), SystemClock(), 1 << 20)
    (message,), _ = producer.prepare([Task("email.send", {"to": "a@b.c"}, id="x")], EnqueueSettings())
    assert message.topic == "TASK_QUEUE_PRIORITY_NORMAL"
    assert {k: message.headers[k] for k in ("queue", "priority", "task_type")} == {
        "queue": "TASK_QUEUE_PRIORITY_NORMAL",
        "priority": "2",
        "task_type": "email.send",
    }
    assert json.loads(message.body) == {
        "task_id": "x",
        "task": {"Type": "email.send", "Payload": "eyJ0byI6ImFAYi5jIn0="},
        "queue": "TASK_QUEUE_PRIORITY_NORMAL",
        "priority": 2,
    }


def test_a_go_task_without_our_headers_is_read() -> None:
    headers = {"queue": "TASK_QUEUE_PRIORITY_HIGH", "priority": "3", "task_type": "email.send"}
    task_id, envelope = read_envelope(headers, find_codec("json").decode(GO_JSON, headers))
    assert (task_id, envelope.type) == ("7b0e2f54-6f0b-4a0e-9d2c-1f6a1f0e3b11_TASKS", "email.send")
    assert (envelope.priority, envelope.attempt, envelope.run, envelope.created_ms) == (3, 1, 1, None)


@pytest.mark.parametrize("headers", [{"nova-attempt": "two"}, {"nova-due": "soon"}, {"nova-process-timeout": "x"}])
def test_headers_that_should_be_numbers_are_checked(headers: dict[str, str]) -> None:
    with pytest.raises(DecodeError, match="number"):
        read_envelope(headers, Content("x", "t", b"", "q", 2))


def test_a_message_without_id_or_type_is_refused() -> None:
    with pytest.raises(DecodeError, match="without an id"):
        read_envelope({}, Content("", "t", b"", "q", 2))
    with pytest.raises(DecodeError, match="without a type"):
        read_envelope({"nova-id": "x"}, Content("", "", b"", "q", 2))


def test_formats_are_switched_under_traffic() -> None:
    class Reversed:
        name = "reversed"

        def encode(self, content: Content) -> bytes:
            return find_codec("json").encode(content)[::-1]

        def decode(self, body: bytes, headers: object) -> Content:
            return find_codec("json").decode(body[::-1], {})

    own: Codec = Reversed()
    for name in FORMATS:
        with TaskQueue(with_memory(name="mixed"), with_message_format(name)) as producer:
            producer.enqueue(Task(name, {"from": name}))
    with TaskQueue(with_memory(name="mixed"), with_codec(own)) as consumer:
        consumer.enqueue(Task("reversed", {"from": "reversed"}))
        seen: list[tuple[str, str]] = []
        consumer.drain(lambda task: seen.append((task.type, task.json()["from"])))
    assert sorted(seen) == sorted((name, name) for name in (*FORMATS, "reversed"))


@pytest.mark.parametrize("bad", [object(), None])
def test_what_is_no_codec_is_refused(bad: object) -> None:
    with pytest.raises(ConfigError, match="codec"):
        with_codec(bad)  # type: ignore[arg-type]


def test_a_codec_may_not_take_a_name_of_ours() -> None:
    with pytest.raises(ConfigError, match="belongs to a format"):
        with_codec(find_codec("json"))
    with pytest.raises(ConfigError, match="did you mean 'orjson'"):
        with_message_format("orjsn")
