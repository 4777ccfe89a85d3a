"""Deliveries that share their headers are read as those that have their own: by the same words to the same copies."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova.admission import Admission
from nova.brokers.base import Delivery, Message
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.memory.driver import MemoryDriver
from nova.codecs import find_codec
from nova.envelope import Content, codec_of
from nova.middleware import Chain
from nova.outcomes import Outcomes
from nova.received import ReceivedTask
from nova.retry import ExponentialBackoff
from nova.routing import Topics
from nova.settlement import Settler

NOW_MS = 1_800_000_000_000
READY = "P_PRIORITY_NORMAL"


class FixedClock:
    def now_ms(self) -> int:
        return NOW_MS

    def monotonic(self) -> float:
        return 0.0


class Nobody:
    def ack(self, deliveries: list[Delivery]) -> None: ...
    def release(self, deliveries: list[Delivery]) -> None: ...


headers = st.fixed_dictionaries(
    {
        "task_type": st.sampled_from(["mail", "row", "row", ""]),
        "priority": st.sampled_from(["1", "2", "3", "", "9", "x"]),
    },
    optional={
        "nova": st.sampled_from(["1 json 1700000000000", "1 blob soon", "1 nope", "1  1700000000000", "1", ""]),
        "nova-attempt": st.sampled_from(["1", "3"]),
        "nova-run": st.sampled_from(["2"]),
        "nova-due": st.sampled_from([str(NOW_MS + 5), str(NOW_MS - 5), ""]),
        "nova-expires": st.sampled_from([str(NOW_MS + 5), str(NOW_MS - 5)]),
        "nova-start-by": st.sampled_from([str(NOW_MS - 5)]),
        "nova-max-retries": st.sampled_from(["0"]),
        "nova-process-timeout": st.sampled_from(["1.5", "long"]),
        "nova-content-type": st.sampled_from(["text/plain"]),
        "nova-target": st.sampled_from(["P_PRIORITY_HIGH", "elsewhere"]),
    },
)
bodies = st.sampled_from([find_codec("json").encode(Content("by-body", "t", b"{}", READY, 3)), b"no JSON"])
kinds = st.lists(headers, min_size=1, max_size=3)
numbers = st.lists(
    st.tuples(st.integers(0, 2), bodies, st.sampled_from([READY, READY, "P-imports", "Q_PRIORITY_LOW"])), max_size=12
)


@given(kinds, numbers)
def test_deliveries_that_share_their_headers_are_read_as_those_that_do_not(
    kinds: list[dict[str, str]], found: list[tuple[int, bytes, str]]
) -> None:
    """A dozen deliveries with headers of a few kinds: with the id among headers of their own, and beside the kind's."""
    own: list[Delivery] = []
    shared: list[Delivery] = []
    for number, (kind, body, topic) in enumerate(found):
        said, task_id = kinds[kind % len(kinds)], f"id-{number}"
        own.append(Delivery(topic, body, {**said, "nova-id": task_id}))
        shared.append(Delivery(topic, body, said, id=task_id))
    assert admitted(shared) == admitted(own)


def admitted(found: Sequence[Delivery]) -> tuple[list[object], list[object]]:
    """What may run, and the copies that were made of the others."""
    settler = Settler(MemoryDriver(MemoryConfig()), "test")
    outcomes = Outcomes(settler, ExponentialBackoff(), Chain([]), FixedClock(), "g", Topics("P"), "w")
    tasks = Admission(outcomes, find_codec("json"), Topics("P"), FixedClock()).admit(found, Nobody())
    moved = [move.message for move in settler._moves]
    return [seen(task) for task in tasks], [without_traceback(message) for message in moved]


def seen(task: ReceivedTask) -> object:
    said = {name: value for name, value in msgspec.structs.asdict(task).items() if name not in ("_delivery", "_source")}
    return {**said, "_envelope": msgspec.structs.asdict(task._envelope), "priority": task.priority}


def without_traceback(message: Message) -> object:
    said = msgspec.structs.asdict(message)
    return {**said, "headers": {name: value for name, value in message.headers.items() if name != "nova-error"}}


def test_a_task_that_crashed_its_workers_is_named_wherever_its_id_stands(caplog: pytest.LogCaptureFixture) -> None:
    crashed = Delivery(READY, b"", {"task_type": "t"}, id="beside", charges=4)
    admitted([crashed])
    assert "beside" in caplog.text


def test_a_stamp_of_any_length_is_read_in_bounded_time_and_space() -> None:
    assert codec_of({"nova": "1 " + "x" * 1_000_000}) == "x" * 98
