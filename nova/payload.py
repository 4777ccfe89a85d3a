"""Values to bytes before the codec, bytes to values in the handler.

Bytes stay as they are, text is UTF-8, protobuf messages are serialised, everything else is JSON by msgspec, which knows
dataclasses, structs, TypedDicts, datetimes, UUIDs, decimals and enums; pydantic models are handled where pydantic is
installed. NaN and infinities have no JSON form: msgspec writes them as null. Safe in any thread.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, TypeVar, cast

import msgspec

from nova.envelope import JSON_TYPE
from nova.errors import ConfigError, DecodeError, EncodeError

__all__ = ["BYTES_TYPE", "PROTOBUF_TYPE", "TEXT_TYPE", "bind", "encode", "load_json"]

M = TypeVar("M")

BYTES_TYPE = "application/octet-stream"
TEXT_TYPE = "text/plain"
PROTOBUF_TYPE = "application/x-protobuf"


def encode(value: Any) -> tuple[bytes, str]:
    """A payload as bytes, and its content type.

    Raises:
        EncodeError: the value, or something inside it, has no JSON form.
    """
    kind = type(value)
    if kind is bytes:
        return value, BYTES_TYPE
    try:
        if kind is dict or kind is list:  # what most are: the questions below cost 0.2 µs (measured)
            return _encode_json(value), JSON_TYPE
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value), BYTES_TYPE
        if isinstance(value, str):
            return value.encode(), TEXT_TYPE
        if is_protobuf(type(value)):
            return cast("bytes", value.SerializeToString()), PROTOBUF_TYPE
        return _encode_json(value), JSON_TYPE
    except (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError) as exc:
        raise EncodeError(
            f"payload: expected bytes, text, a protobuf message or something JSON can hold, "
            f"got {type(value).__name__}: {exc}; convert it before enqueueing"
        ) from exc
    except Exception as exc:
        if type(exc).__module__.startswith("google.protobuf"):
            raise EncodeError(f"payload: the protobuf message {type(value).__name__} is not complete: {exc}") from exc
        raise


def load_json(payload: bytes, content_type: str) -> Any:
    """The value of a JSON payload.

    Raises:
        DecodeError: another content type, or no JSON.
    """
    if content_type != JSON_TYPE:
        raise DecodeError(f"payload is {content_type}, not {JSON_TYPE}: use .payload for its bytes")
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise DecodeError(f"payload is no JSON: {exc}") from exc


def bind(payload: bytes, content_type: str, model: type[M]) -> M:
    """The payload as an instance of `model`, checked.

    Args:
        model: a dataclass, msgspec struct, TypedDict, pydantic model, protobuf message class, or any type msgspec knows.

    Raises:
        DecodeError: the payload does not fit; the message says where.
        ConfigError: nobody here knows how to read such a model.
    """
    if is_protobuf(model):
        return _bind_protobuf(payload, content_type, model)
    if content_type != JSON_TYPE:
        raise DecodeError(f"payload is {content_type}, not {JSON_TYPE}: {_name(model)} cannot be read from it")
    try:
        return cast("M", decoder(cast("Any", model)).decode(payload))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise DecodeError(f"payload does not fit {_name(model)}: {exc}") from exc


@functools.lru_cache(maxsize=1024)
def decoder(model: Any) -> msgspec.json.Decoder[Any]:
    """The strict JSON reader of a model.

    Raises:
        ConfigError: a type in it that neither msgspec nor pydantic knows.
    """
    try:
        return msgspec.json.Decoder(model, dec_hook=_decode_foreign)
    except (TypeError, NameError) as exc:
        raise ConfigError(f"{_name(model)}: cannot be read from JSON: {exc}") from exc


def is_protobuf(kind: type[Any]) -> bool:
    """Whether this is a generated protobuf message class; never imports protobuf."""
    module = sys.modules.get("google.protobuf.message")
    return module is not None and isinstance(kind, type) and issubclass(kind, module.Message)


def _bind_protobuf(payload: bytes, content_type: str, model: type[M]) -> M:
    if content_type != PROTOBUF_TYPE:
        raise DecodeError(f"payload is {content_type}, not {PROTOBUF_TYPE}: {_name(model)} cannot be read from it")
    message: Any = model()
    try:
        message.ParseFromString(payload)
    except Exception as exc:  # protobuf's DecodeError, importable only where protobuf is
        raise DecodeError(f"payload does not fit {_name(model)}: {exc}") from exc
    return cast("M", message)


def _is_pydantic(kind: Any) -> bool:
    module = sys.modules.get("pydantic")
    return module is not None and isinstance(kind, type) and issubclass(kind, module.BaseModel)


def _encode_foreign(value: Any) -> Any:
    if _is_pydantic(type(value)):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _decode_foreign(kind: Any, value: Any) -> Any:
    if _is_pydantic(kind):
        try:
            return kind.model_validate(value)
        except ValueError as exc:
            raise ValueError("; ".join(str(exc).splitlines()[:6])) from exc
    if isinstance(value, kind):
        return value
    raise TypeError(f"{_name(kind)} is not readable from JSON")


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


_encode_json = msgspec.json.Encoder(enc_hook=_encode_foreign).encode
