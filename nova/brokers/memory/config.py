"""What `with_memory` holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nova.brokers.checks import Bounds, OptionChecks, Whole
from nova.errors import ConfigError

__all__ = ["MemoryConfig"]

_CHECK = OptionChecks("with_memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """Options of the in-memory driver.

    Attributes:
        name: queues of one process with the same name share a broker; None = a broker of its own.
        max_messages: messages held at most; beyond it `enqueue` fails with `QueueFull`.
        max_body_bytes: larger bodies are refused before they are sent.
    """

    name: str | None = None
    max_messages: int = 1_000_000
    max_body_bytes: int = 64 << 20

    factory = "nova.brokers.memory.driver:MemoryDriver"
    extra = ""
    bounds: ClassVar[Bounds] = {"max_messages": Whole(1), "max_body_bytes": Whole(1)}

    def __post_init__(self) -> None:
        _CHECK.bounds(self, self.bounds)
        if self.name is not None and not isinstance(self.name, str):
            raise ConfigError(f"with_memory(name): expected text, got {self.name!r}")
