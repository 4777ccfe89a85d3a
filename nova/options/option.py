"""What every `with_…` function returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Option"]


@dataclass(frozen=True, slots=True)
class Option:
    """One checked option of a queue; make it with a `with_…` function.

    Attributes:
        setting: the field of `QueueSettings` it sets; two options of one setting are a mistake.
        source: the function that made it, for messages.
    """

    setting: str
    value: Any
    source: str
