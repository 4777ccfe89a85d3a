"""Which offsets of one partition are finished. Pure data, owned by one thread.

Kafka commits one offset per partition: all below it is done. A tracker keeps what is finished above that base, so that one
slow task holds back no other, and so that a successor repeats only what was not finished (`offset_map` makes it durable).
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["OffsetTracker"]


class OffsetTracker:
    """The finished offsets of one partition.

    Args:
        base: the least offset that is not finished.
        done: finished offsets above it, from a predecessor.

    Attributes:
        base: all below it are finished; never passes an unfinished offset.
        next: one above the highest offset fetched.
    """

    __slots__ = ("_done", "base", "next")

    def __init__(self, base: int, done: Iterable[int] = ()) -> None:
        self.base = base
        self.next = base
        self._done = {offset for offset in done if offset >= base}
        self._advance()

    def fetch(self, offset: int) -> bool:
        """Note that this offset came; False if it is finished already.

        Offsets never come out of order; those left out do not exist (compacted, deleted, transaction markers) and count as
        finished, or the base would stop at them for ever.
        """
        if offset == self.next and not self._done:
            self.next = offset + 1
            return True
        if offset > self.next:
            self._skip_to(offset)
        if offset >= self.next:
            self.next = offset + 1
        return offset >= self.base and offset not in self._done

    def complete(self, offsets: Iterable[int]) -> None:
        """These are finished. Below the base they are already."""
        base = self.base
        finished = {offset for offset in offsets if offset >= base}
        if finished and not self._done and max(finished) - base + 1 == len(finished):  # the next ones, all of them
            self.base = base + len(finished)
            self.next = max(self.next, self.base)
            return
        self._done |= finished
        self._advance()

    @property
    def done(self) -> frozenset[int]:
        """The finished offsets above the base."""
        return frozenset(self._done)

    def runs(self) -> list[int]:
        """Lengths from the base on: unfinished, finished, unfinished, finished, …; ends with a finished run."""
        lengths: list[int] = []
        end = self.base
        start = last = -2
        for offset in sorted(self._done):
            if offset != last + 1:
                if last >= 0:
                    lengths.append(last + 1 - start)
                    end = last + 1
                lengths.append(offset - end)
                start = offset
            last = offset
        if last >= 0:
            lengths.append(last + 1 - start)
        return lengths

    def _skip_to(self, offset: int) -> None:
        if self.base == self.next and not self._done:
            self.base = offset
            return
        self._done.update(range(max(self.next, self.base), offset))
        self._advance()

    def _advance(self) -> None:
        base, done = self.base, self._done
        while base in done:
            done.remove(base)
            base += 1
        self.base = base
        self.next = max(self.next, base)
