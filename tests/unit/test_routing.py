"""Topic names: the documented forms, read back without doubt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova import ConfigError, Priority
from nova.routing import Topics, check_queue

names = st.from_regex(r"[A-Za-z0-9_-]{1,50}", fullmatch=True)


def is_legal(name: str) -> bool:
    try:
        check_queue(name)
    except ConfigError:
        return False
    return True


def test_the_documented_forms() -> None:
    topics = Topics("SHOP")
    assert topics.ready("default", 3) == "SHOP_PRIORITY_HIGH"
    assert topics.ready("default", 2) == "SHOP_PRIORITY_NORMAL"
    assert topics.ready("default", 1) == "SHOP_PRIORITY_LOW"
    assert topics.ready("imports", 2) == "SHOP-imports"
    assert topics.ready("imports", 3) == "SHOP-imports_PRIORITY_HIGH"
    assert topics.ready("imports", 1) == "SHOP-imports_PRIORITY_LOW"
    assert topics.dead == "SHOP_DEAD"
    assert topics.quarantine("default") == "SHOP_QUARANTINE"
    assert topics.quarantine("imports") == "SHOP-imports_QUARANTINE"


@given(prefix=names, queue=names.filter(is_legal), priority=st.sampled_from(Priority))
def test_a_topic_tells_its_queue_and_class(prefix: str, queue: str, priority: Priority) -> None:
    topics = Topics(prefix)
    assert topics.read(topics.ready(queue, priority)) == (queue, priority)


@given(prefix=names, queues=st.lists(names.filter(is_legal), min_size=2, max_size=5, unique=True))
def test_no_two_queues_share_a_topic(prefix: str, queues: list[str]) -> None:
    topics = Topics(prefix)
    every = [topics.ready(queue, priority) for queue in queues for priority in Priority]
    every += [topics.dead, *map(topics.quarantine, queues)]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("topic", ["OTHER_PRIORITY_HIGH", "SHOP", "SHOP_DEAD", "SHOPx"])
def test_a_foreign_topic_is_refused(topic: str) -> None:
    with pytest.raises(ConfigError, match="does not belong"):
        Topics("SHOP").read(topic)
