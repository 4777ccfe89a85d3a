"""What drivers refuse alike, in the same words."""

from __future__ import annotations

from nova.errors import BrokerError

__all__ = ["group_in_use"]


def group_in_use(where: str, group: str, killed: str = "") -> BrokerError:
    """The refusal to remove a group that works.

    Args:
        where: the broker, for the message.
        killed: until when a worker that was killed counts, such as "for two minutes"; "" = it does not.
    """
    note = f" (one that was killed counts {killed})" if killed else ""
    return BrokerError(f"{where}: the group {group!r} has running workers; stop its workers first{note}")
