"""The forms a task takes in a message body, found by name.

`json` always works; `orjson` (alias `sonic`) and `protobuf` need their extra; `blob` is the bare payload. A consumer
decodes each message by its `nova` header, so formats may be switched under traffic.
"""

from __future__ import annotations

import difflib
import importlib
import re
from typing import cast

from nova.codecs.base import Codec
from nova.errors import ConfigError

__all__ = ["FORMATS", "NAMES", "Codec", "check_codec", "find_codec"]

FORMATS = ("json", "orjson", "blob", "protobuf")
"""The names `with_message_format` takes, besides the alias `sonic`."""

_CLASSES = {"json": "JsonCodec", "orjson": "OrjsonCodec", "blob": "BlobCodec", "protobuf": "ProtobufCodec"}
_ALIASES = {"sonic": "orjson"}

NAMES = (*FORMATS, *_ALIASES)
"""All names that `with_message_format` takes."""


def find_codec(name: str) -> Codec:
    """The codec of a format name.

    Raises:
        ConfigError: no such format, or its package is missing.
    """
    known = _ALIASES.get(name, name) if isinstance(name, str) else ""
    if known not in _CLASSES:
        near = difflib.get_close_matches(str(name), [*FORMATS, *_ALIASES], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"message format: expected one of {', '.join(FORMATS)}, got {name!r}{hint}")
    try:
        module = importlib.import_module(f"nova.codecs.{known}")
    except ImportError as exc:
        raise ConfigError(
            f"message format {name!r}: the package {exc.name!r} is missing; pip install 'nova-taskqueue[{known}]'"
        ) from exc
    return cast("Codec", getattr(module, _CLASSES[known])())


def check_codec(codec: object) -> Codec:
    """A user's own codec, looked over.

    Raises:
        ConfigError: it is no codec, or takes a name of ours.
    """
    if not isinstance(codec, Codec):
        raise ConfigError(f"codec: expected an object with name, encode() and decode(), got {codec!r}")
    if not isinstance(codec.name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,50}", codec.name):
        raise ConfigError(f"codec: its name must be 1 to 50 letters, digits, '_' or '-', got {codec.name!r}")
    if codec.name in _CLASSES or codec.name in _ALIASES:
        raise ConfigError(f"codec: the name {codec.name!r} belongs to a format of Nova's; choose another")
    return codec
