"""Which deliveries of a channel are still held, and the fewest acks that say so. Pure; one thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

__all__ = ["AckBook"]


class AckBook:
    """Delivery tags of one channel, in the order in which they came."""

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._held: set[int] = set()

    def __len__(self) -> int:
        return len(self._held)

    def came(self, tag: int) -> None:
        """A delivery with this tag is held from now on."""
        self._order.append(tag)
        self._held.add(tag)

    def settle(self, tags: Iterable[int]) -> tuple[int | None, list[int]]:
        """These are done: a tag up to which all may be acked at once, and those to be acked singly.

        The first is one of these: the server closes the channel over a tag that it knows no more, such as one acked before.
        """
        held = self._held
        done = self.take(tags)
        order = self._order
        through: int | None = None
        while order and order[0] not in held:
            tag = order.popleft()
            if tag in done:
                through = tag
        if through is None:
            return None, sorted(done)
        return through, sorted([tag for tag in done if tag > through])

    def take(self, tags: Iterable[int]) -> set[int]:
        """Those of these that are held, and are not any more from now on."""
        taken = self._held.intersection(tags)
        self._held -= taken
        return taken
