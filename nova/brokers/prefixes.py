"""Whose topics are these: those of one prefix among all that a broker knows. Pure; for drivers that list groups.

`nova.routing` composes the names; this module reads them back without knowing which prefixes there are. Two prefixes may
share a beginning: `A-image_PRIORITY_HIGH` is of the queue `image` of the prefix `A`, or of the default queue of `A-image`.
A prefix shows itself by a topic that no other can have: its `…_PRIORITY_NORMAL` or its `…_DEAD`. Of several prefixes that
fit, the longest that shows itself has the topic; if none does, whoever asks. So only a prefix that has never used its default
queue and has never buried anything can be taken for queues of a shorter one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["topics_of"]


def topics_of(prefix: str, topics: Iterable[str]) -> set[str]:
    """Those of these topics that belong to the prefix.

    Args:
        prefix: as in `DriverContext.prefix`.
        topics: all names that the broker knows, those of other prefixes and of strangers included.
    """
    parts = {topic: _split(topic) for topic in topics}
    shown = {stem for stem, mark in parts.values() if mark in _OF_PREFIX}
    return {topic for topic, (stem, mark) in parts.items() if _owner(stem, mark, shown, prefix) == prefix}


def _owner(stem: str, mark: str, shown: set[str], asking: str) -> str | None:
    fitting = _fitting(stem, mark)
    known = [prefix for prefix in fitting if prefix in shown]
    if known:
        return max(known, key=len)
    return asking if asking in fitting else None


def _fitting(stem: str, mark: str) -> list[str]:
    """The prefixes that may have such a topic."""
    own = [stem] if mark else []
    if mark in _OF_PREFIX:
        return own
    return own + [stem[: dash.start()] for dash in re.finditer("-", stem) if 0 < dash.start() < len(stem) - 1]


def _split(topic: str) -> tuple[str, str]:
    """A topic without and with the mark at its end."""
    found = _MARK.search(topic)
    return (topic[: found.start()], found[0]) if found else (topic, "")


_OF_PREFIX = ("_PRIORITY_NORMAL", "_DEAD")
"""Marks of no queue but `default`: a named queue's normal topic has no mark, and a prefix has one dead-letter topic."""
_MARK = re.compile(r"(?<=.)_(?:PRIORITY_(?:HIGH|NORMAL|LOW)|DEAD|QUARANTINE)$")
