"""What is written by hand for speed is byte for byte what pika writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec

from nova.brokers.rabbitmq.frames import ack_frames, publish_frames

SHORT = st.text(st.characters(codec="utf-8"), max_size=40)


@given(
    exchange=SHORT,
    key=SHORT,
    headers=st.dictionaries(SHORT, st.text(st.characters(codec="utf-8"), max_size=100), max_size=4),
    body=st.binary(max_size=500).map(lambda piece: piece * 40),
    most=st.integers(4000, 9000),
    message_id=SHORT.filter(bool),
    timestamp=st.integers(0, 2**40),
)
def test_frames_are_those_of_pika(
    exchange: str, key: str, headers: dict[str, str], body: bytes, most: int, message_id: str, timestamp: int
) -> None:
    properties = spec.BasicProperties(
        content_type="application/json",
        headers=headers,
        delivery_mode=2,
        correlation_id="7",
        message_id=message_id,
        timestamp=timestamp,
    )
    expected = frame.Method(3, spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=True)).marshal()
    expected += frame.Header(3, len(body), properties).marshal()
    for start in range(0, len(body), most):
        expected += frame.Body(3, body[start : start + most]).marshal()
    assert expected == publish_frames(
        3,
        most,
        exchange,
        key,
        headers,
        body,
        content_type="application/json",
        correlation_id="7",
        message_id=message_id,
        timestamp=timestamp,
    )


def test_headers_that_fill_more_than_a_frame_are_refused_by_size() -> None:
    """The server would close the connection over them, and everything on its way would have to go again."""
    with pytest.raises(ValueError, match=r"headers have 50\d\d bytes, the server takes 4088"):
        publish_frames(
            3, 4088, "", "q", {"m": "x" * 5000}, b"", content_type="", correlation_id="1", message_id="m", timestamp=0
        )


@given(
    through=st.none() | st.integers(1, 2**60),
    singles=st.lists(st.integers(1, 2**60), max_size=5),
    channel=st.integers(1, 65535),
)
def test_acks_are_those_of_pika(through: int | None, singles: list[int], channel: int) -> None:
    expected = [spec.Basic.Ack(tag) for tag in singles]
    if through is not None:
        expected.insert(0, spec.Basic.Ack(through, multiple=True))
    assert ack_frames(channel, through, singles) == b"".join(frame.Method(channel, ack).marshal() for ack in expected)


@pytest.mark.parametrize("text", ["x" * 256, "é" * 128, "\ud800"])
def test_text_that_amqp_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"longer than 255|surrogates not allowed"):
        publish_frames(1, 100, "", text, {}, b"", content_type="a/b", correlation_id="1", message_id="i", timestamp=0)
