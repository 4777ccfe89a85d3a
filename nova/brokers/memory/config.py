"""What `with_memory` holds."""

from __future__ import annotations

from dataclasses import dataclass

from nova.errors import ConfigError

__all__ = ["MemoryConfig"]


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

    def __post_init__(self) -> None:
        for name in ("max_messages", "max_body_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"with_memory({name}): expected an integer >= 1, got {value!r}")
        if self.name is not None and not isinstance(self.name, str):
            raise ConfigError(f"with_memory(name): expected text, got {self.name!r}")
