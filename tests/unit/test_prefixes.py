"""Which topics are one prefix's, among those of prefixes that begin alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nova import ConfigError, Priority
from nova.brokers.prefixes import topics_of
from nova.routing import Topics, check_prefix, check_queue


def names_of(prefix: str, *queues: str) -> set[str]:
    """Every topic of a prefix with these queues."""
    topics = Topics(prefix)
    ready = {topics.ready(queue, priority) for queue in queues for priority in Priority}
    return ready | {topics.dead} | {topics.quarantine(queue) for queue in queues}


def is_legal(prefix: str) -> bool:
    try:
        check_prefix(prefix)
        check_queue(prefix)
    except ConfigError:
        return False
    return True


words = st.text("AB_-", min_size=1, max_size=6).filter(is_legal)


def test_a_prefix_that_begins_like_another_keeps_its_topics() -> None:
    short, long = names_of("A", "default", "image-resize"), names_of("A-B", "default", "q")
    beside = names_of("A_B", "default", "q") | names_of("AB", "default") | {"stranger", "A", "_DEAD", "-"}
    everything = short | long | beside
    assert topics_of("A", everything) == short
    assert topics_of("A-B", everything) == long
    assert topics_of("nobody", everything) == set()


def test_without_a_sign_of_the_longer_prefix_its_topics_are_a_queues() -> None:
    assert topics_of("A", {"A_DEAD", "A-B-q"}) == {"A_DEAD", "A-B-q"}
    assert topics_of("A-B", {"A_DEAD", "A-B-q"}) == set()
    assert topics_of("A-B", {"A-B-q"}) == {"A-B-q"}
    assert topics_of("A-B", {"A_DEAD", "A-B-q", "A-B_DEAD"}) == {"A-B-q", "A-B_DEAD"}


def test_a_prefix_that_looks_like_a_mark_is_told_apart() -> None:
    odd = names_of("A_PRIORITY", "default", "q")
    assert topics_of("A", odd | {"A_DEAD"}) == {"A_DEAD"}
    assert topics_of("A_PRIORITY", odd | {"A_DEAD"}) == odd


@given(words, words, st.lists(words, max_size=3), st.lists(words, max_size=3))
def test_topics_of_two_prefixes_in_use_are_never_lost_and_never_shared(
    one: str, two: str, queues: list[str], others: list[str]
) -> None:
    a, b = names_of(one, "default", *queues), names_of(two, "default", *others)
    assert topics_of(one, a) == a
    if one != two:
        found = topics_of(one, a | b), topics_of(two, a | b)
        assert not found[0] & found[1]
        assert found[0] >= a - b - {t for t in a if t.startswith((f"{two}-", f"{two}_"))}
