"""How many records are lent at once while it is not known which of them kills its process. Pure."""

from __future__ import annotations

__all__ = ["CAREFUL_HELD", "CAREFUL_MOST", "Caution"]

CAREFUL_HELD = 32
"""The most at first: all of them may become suspects."""
CAREFUL_MOST = 512
"""And after rounds that nobody died of, each twice as large: batches that wait for their window would take an hour else."""


class Caution:
    """Slow start over the careful partitions of one consumer."""

    def __init__(self) -> None:
        self._most = CAREFUL_HELD
        self._held = 0

    def begin_again(self) -> None:
        """Partitions came, and with them perhaps another killer."""
        self._most = CAREFUL_HELD
        self._held = 0

    def room(self, held: int) -> int:
        """How many more may be lent, when so many are."""
        if self._held and not held:
            self._most = min(2 * self._most, CAREFUL_MOST)
        self._held = held
        return self._most - held
