"""Places that confirm nothing: found by the oldest message without a confirmation, held back, tried one at a time."""

from __future__ import annotations

from collections import deque

from nova.brokers.rabbitmq.messages import Outgoing
from nova.brokers.rabbitmq.silent import SilentPlaces

AFTER = 5.0
Item = tuple[str, int, Outgoing]


def item(name: str, place: str) -> Item:
    return name, 0, Outgoing("", place, b"", {}, name)


def silenced(place: str) -> SilentPlaces[Item]:
    places: SilentPlaces[Item] = SilentPlaces(AFTER)
    unconfirmed = {1: item("first", place)}
    assert places.look(unconfirmed, 0, 0.0) is None
    assert places.look(unconfirmed, 0, AFTER) == (place, True)
    return places


def test_the_place_of_the_oldest_message_is_silent_after_a_while() -> None:
    places: SilentPlaces[Item] = SilentPlaces(AFTER)
    unconfirmed = {1: item("a", "bad"), 2: item("b", "good")}
    assert places.look(unconfirmed, 0, 0.0) is None
    assert places.look(unconfirmed, 1, AFTER - 0.1) is None
    assert places.look(unconfirmed, 1, AFTER) == ("bad", False), "others were confirmed meanwhile"
    assert places.look(unconfirmed, 1, AFTER) is None, "the next one has its own time"
    assert places.look(unconfirmed, 1, 2 * AFTER) == ("good", True)


def test_a_place_whose_messages_are_confirmed_one_after_the_other_is_not_silent() -> None:
    places: SilentPlaces[Item] = SilentPlaces(AFTER)
    for second in range(60):
        assert places.look({second: item("a", "busy")}, second, float(second)) is None


def test_another_connection_begins_anew() -> None:
    places: SilentPlaces[Item] = SilentPlaces(AFTER)
    assert places.look({1: item("a", "q")}, 0, 0.0) is None
    places.start_over()
    assert places.look({1: item("b", "q")}, 0, AFTER) is None


def test_what_is_held_back_is_tried_one_at_a_time_and_sent_when_the_place_is_back() -> None:
    places = silenced("bad")
    first, second, third = (item(name, "bad") for name in "abc")
    assert not places.hold(item("x", "good"))
    assert all(places.hold(each) for each in (first, second, third))
    assert places.to_try() == [first]
    assert places.to_try() == []
    assert places.tried(first, is_back=False) == deque()
    assert places.to_try() == [first], "it goes before the others again"
    assert places.tried(first, is_back=True) == deque([second, third])
    assert len(places) == 0
    assert not places.hold(second)


def test_a_late_confirmation_frees_a_place_and_a_try_that_ends_later_is_sent_again() -> None:
    places = silenced("bad")
    first, second = item("a", "bad"), item("b", "bad")
    assert places.hold(first)
    assert places.hold(second)
    assert places.to_try() == [first]
    assert places.confirmed(item("z", "bad")) == deque([second])
    assert places.tried(first, is_back=False) == deque([first])


def test_what_was_given_up_is_not_kept() -> None:
    places = silenced("bad")
    first, second = item("a", "bad"), item("b", "bad")
    assert places.hold(first)
    assert places.hold(second)
    first[2].done = True
    places.forget_done()
    assert places.to_try() == [second]
