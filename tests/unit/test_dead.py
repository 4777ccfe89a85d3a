"""Dead letters as a person sees them, whatever somebody wrote into their headers."""

from __future__ import annotations

import pytest

from nova import TaskQueue, with_group_id, with_memory, with_topic_prefix
from nova.brokers.base import Delivery, Message
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.memory.driver import MemoryDriver
from nova.copies import replay


@pytest.mark.parametrize("odd", ["9" * 5000, "²", "", "-1", "9" * 15])
def test_a_letter_with_numbers_that_are_none_hides_no_other(odd: str) -> None:
    name = f"odd-{len(odd)}-{odd[:1]}"
    headers = {"nova-id": "odd", "nova-attempt": odd, "nova-died": odd}
    letters = [
        Message("P_DEAD", b"x", headers, "odd", group="g"),
        Message(
            "P_DEAD", b"x", {"nova-id": "plain", "nova-attempt": "3", "nova-died": "1700000000000"}, "p", group="g"
        ),
    ]
    assert MemoryDriver(MemoryConfig(name=name)).publish(letters).result() == [None, None]
    with TaskQueue(with_memory(name=name), with_topic_prefix("P"), with_group_id("g")) as q:
        found = {letter.id: letter for letter in q.dead.list()}
    assert (found["odd"].attempt, found["odd"].died_at) == (1, None)
    assert found["plain"].attempt == 3
    assert found["plain"].died_at is not None


@pytest.mark.parametrize(("odd", "run"), [("9" * 5000, "2"), ("²", "2"), ("", "2"), ("4", "5"), ("0", "1")])
def test_a_letter_whose_run_is_no_number_is_sent_back_all_the_same(odd: str, run: str) -> None:
    letter = Delivery("P_DEAD", b"x", {"nova-id": "odd", "nova-run": odd, "nova-target": "P_PRIORITY_NORMAL"})
    copy = replay(letter, "g")
    assert copy is not None
    assert copy.headers["nova-run"] == run
