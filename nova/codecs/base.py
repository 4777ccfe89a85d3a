"""What every codec does: a task's content to a body and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from nova.envelope import Content

__all__ = ["Codec"]


@runtime_checkable
class Codec(Protocol):
    """Turns content into a message body and back. Called from many threads at once: keep it free of state.

    Attributes:
        name: 1 to 50 of `A-Za-z0-9_-`; travels in the `nova` header and picks the decoder at the consumer.
    """

    @property
    def name(self) -> str:
        """The name in the `nova` header."""
        ...

    def encode(self, content: Content) -> bytes:
        """The body.

        Raises:
            EncodeError: this content cannot be written in this form.
        """
        ...

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Content:
        """The content of a body; what only the headers say may be taken from them.

        Raises:
            DecodeError: the body is not of this form.
        """
        ...
