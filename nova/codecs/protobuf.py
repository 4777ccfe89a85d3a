"""The `protobuf` codec: `proto/nova/v1/envelope.proto`."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError as WireError

from nova.codecs._pb.envelope_pb2 import Envelope
from nova.envelope import Content
from nova.errors import DecodeError, EncodeError

__all__ = ["ProtobufCodec"]


class ProtobufCodec:
    """One `nova.v1.Envelope` message a body."""

    name = "protobuf"

    def encode(self, content: Content) -> bytes:
        """The serialised envelope.

        Raises:
            EncodeError: text that UTF-8 cannot hold (a lone surrogate), or a priority beyond 32 bits.
        """
        try:
            message = Envelope(
                task_id=content.task_id,
                type=content.type,
                payload=content.payload,
                topic=content.topic,
                priority=content.priority,
            )
            return message.SerializeToString()
        except ValueError as exc:
            raise EncodeError(f"protobuf: task {content.task_id!r} cannot be written: {exc}") from exc

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Content:
        """The content of an envelope.

        Raises:
            DecodeError: no such message.
        """
        del headers
        try:
            message = Envelope.FromString(body)
        except WireError as exc:
            raise DecodeError(f"protobuf: body is not a nova.v1.Envelope: {exc}") from exc
        return Content(message.task_id, message.type, message.payload, message.topic, message.priority)
