"""Payloads: every kind to bytes and back, strict reading, readable errors."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Any

import msgspec
import pydantic
import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from nova import ConfigError, DecodeError, EncodeError, ReceivedTask, Task, TaskQueue, with_memory
from nova.payload import bind, encode, load_json


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Address:
    city: str
    zip: int | None = None


@dataclasses.dataclass
class Order:
    id: uuid.UUID
    at: dt.datetime
    price: decimal.Decimal
    colour: Colour
    to: Address
    lines: list[Address]


class Line(msgspec.Struct):
    n: int


class Model(pydantic.BaseModel):
    n: int
    when: dt.date


ORDER = Order(
    uuid.UUID(int=5),
    dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    decimal.Decimal("1.10"),
    Colour.RED,
    Address("Köln", 5),
    [Address("x")],
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(value=json_values)
def test_json_values_come_back(value: Any) -> None:
    data, kind = encode(value)
    if isinstance(value, str):
        assert (data.decode(), kind) == (value, "text/plain")
    else:
        assert load_json(data, kind) == value


@pytest.mark.parametrize(
    ("value", "data", "kind"),
    [
        (b"\x00\xff", b"\x00\xff", "application/octet-stream"),
        (bytearray(b"x"), b"x", "application/octet-stream"),
        ("é", "é".encode(), "text/plain"),
        ({"a": 1}, b'{"a":1}', "application/json"),
        (None, b"null", "application/json"),
    ],
)
def test_kinds_and_bytes(value: object, data: bytes, kind: str) -> None:
    assert encode(value) == (data, kind)


@pytest.mark.parametrize("value", [ORDER, Line(3), Model(n=1, when=dt.date(2026, 1, 1)), {"nested": [ORDER.to]}])
def test_models_come_back_as_themselves(value: Any) -> None:
    data, kind = encode(value)
    model = type(value) if not isinstance(value, dict) else dict[str, list[Address]]
    assert bind(data, kind, model) == value


def test_protobuf_messages_come_back() -> None:
    message = Struct()
    message.update({"a": 1.5})
    data, kind = encode(message)
    assert kind == "application/x-protobuf"
    assert bind(data, kind, Struct) == message
    with pytest.raises(DecodeError, match="not application/x-protobuf"):
        bind(b"{}", "application/json", Struct)
    with pytest.raises(DecodeError, match="does not fit Struct"):
        bind(b"\xff\xff", kind, Struct)


@pytest.mark.parametrize(
    ("payload", "model", "words"),
    [
        ({"city": 5}, Address, r"Expected `str`, got `int` - at `\$.city`"),
        ({"zip": 5}, Address, "missing required field `city`"),
        ({"n": 1, "when": "never"}, Model, "when"),
        ([1, 2], Address, "Expected `object`, got `array`"),
        ({"n": 1.5}, Line, "Expected `int`"),
    ],
)
def test_misfits_name_the_task_and_the_place(payload: Any, model: Any, words: str) -> None:
    errors: list[BaseException] = []

    def handle(task: ReceivedTask) -> None:
        try:
            task.bind(model)
        except DecodeError as exc:
            errors.append(exc)

    with TaskQueue(with_memory()) as q:
        q.enqueue(Task("order.new", payload, id="o-1"))
        q.drain(handle)
    (error,) = errors
    assert "task o-1 (type 'order.new'): payload does not fit" in str(error)
    import re

    assert re.search(words, str(error))


def test_reading_json_from_other_kinds_is_refused() -> None:
    with pytest.raises(DecodeError, match=r"use \.payload"):
        load_json(b"{}", "application/octet-stream")
    with pytest.raises(DecodeError, match="no JSON"):
        load_json(b"{", "application/json")


def test_a_model_nobody_can_read_is_a_config_error() -> None:
    class Opaque:
        def __init__(self, x: int) -> None: ...

    with pytest.raises((ConfigError, DecodeError), match="Opaque"):
        bind(b"{}", "application/json", Opaque)


def test_a_lone_surrogate_is_an_encode_error() -> None:
    with pytest.raises(EncodeError):
        encode("\ud800")
    with pytest.raises(EncodeError):
        encode({"x": "\ud800"})
