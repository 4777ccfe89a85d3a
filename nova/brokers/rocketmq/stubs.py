"""The official client's generated protobuf and gRPC code, without the rest of that client.

Importing the package `rocketmq` makes `~/logs/rocketmq_python/rocketmq_client.log` and fails where that folder cannot be made
(rocketmq-python-client 5.1.2); it also loads OpenTelemetry. The generated code needs none of it. So the package's own
`__init__` is passed over while that code is loaded, and a program that imports `rocketmq` itself gets it as ever.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import types
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core prints every refused connection to stderr

__all__ = ["definition", "service", "stub"]

_PACKAGE = "rocketmq"
_loading = threading.Lock()


def _load(name: str) -> Any:
    with _loading:
        if _PACKAGE in sys.modules:
            return importlib.import_module(f"{_PACKAGE}.grpc_protocol.{name}")
        found = importlib.util.find_spec(_PACKAGE)
        if found is None or found.submodule_search_locations is None:
            raise ModuleNotFoundError("No module named 'rocketmq'", name=_PACKAGE)
        bare = types.ModuleType(_PACKAGE)
        bare.__path__ = list(found.submodule_search_locations)
        sys.modules[_PACKAGE] = bare
        try:
            return importlib.import_module(f"{_PACKAGE}.grpc_protocol.{name}")
        finally:
            del sys.modules[_PACKAGE]


definition = _load("definition_pb2")
service = _load("service_pb2")
stub = _load("service_pb2_grpc")
