"""RocketMQ's answers and gRPC's errors in Nova's words: what stored nothing, what waiting mends, the way out. Pure."""

from __future__ import annotations

from typing import Any

import grpc

from nova.brokers.rocketmq.stubs import definition
from nova.errors import BrokerError, BrokerUnavailable, PublishError

__all__ = ["Failure", "failure_of_call", "failure_of_status"]

_CODE = definition.Code
OK = _CODE.OK
MESSAGE_NOT_FOUND = _CODE.MESSAGE_NOT_FOUND
TOPIC_NOT_FOUND = _CODE.TOPIC_NOT_FOUND
ILLEGAL_DELIVERY_TIME = _CODE.ILLEGAL_DELIVERY_TIME
INVALID_RECEIPT_HANDLE = _CODE.INVALID_RECEIPT_HANDLE
MULTIPLE_RESULTS = _CODE.MULTIPLE_RESULTS

_HINTS = {
    _CODE.TOPIC_NOT_FOUND: "create it, or give with_rocketmq(admin=…) so that Nova can",
    _CODE.CONSUMER_GROUP_NOT_FOUND: "create it, or give with_rocketmq(admin=…) so that Nova can",
    _CODE.UNAUTHORIZED: "check access_key and secret_key",
    _CODE.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE: "the topic has another message type; make it anew as NORMAL, the prefix's "
    "_DELAY_0 as DELAY, or use another prefix",
    _CODE.MESSAGE_BODY_TOO_LARGE: "raise maxMessageSize of proxy and broker, or enqueue a reference to the data",
    _CODE.MESSAGE_PROPERTIES_TOO_LARGE: "less metadata: the proxy's maxUserPropertySize bounds it",
    _CODE.ILLEGAL_INVISIBLE_TIME: "with_rocketmq(invisible_duration=…) must lie between the proxy's "
    "minInvisibleTimeMillsForRecv and maxInvisibleTimeMills",
    _CODE.ILLEGAL_DELIVERY_TIME: "lower with_rocketmq(max_delay=…) to the proxy's maxDelayTimeMills, which is a day unless "
    "set; longer delays are chained",
    _CODE.ILLEGAL_POLLING_TIME: "raise with_rocketmq(poll_timeout=…) to the proxy's "
    "grpcClientConsumerMinLongPollingTimeoutMillis",
}
_RIGHTS = "grant this user Pub and Sub on the prefix's topics and groups (mqadmin createAcl)"
_DENIED = "has no permission"
"""In the words of a server that knows who asks: it has one code for strangers and for users without a right."""
_MENDS = frozenset(
    {
        # The proxy believes for 20 s that a topic is missing if it was asked before the broker had registered.
        _CODE.TOPIC_NOT_FOUND,
        _CODE.TOO_MANY_REQUESTS,
        _CODE.INTERNAL_ERROR,
        _CODE.INTERNAL_SERVER_ERROR,
        _CODE.HA_NOT_AVAILABLE,
        _CODE.REQUEST_TIMEOUT,
        _CODE.PROXY_TIMEOUT,
        _CODE.MASTER_PERSISTENCE_TIMEOUT,
        _CODE.SLAVE_PERSISTENCE_TIMEOUT,
    }
)
_MAY_BE_STORED = frozenset(
    {
        _CODE.INTERNAL_ERROR,
        _CODE.INTERNAL_SERVER_ERROR,
        _CODE.PROXY_TIMEOUT,
        _CODE.REQUEST_TIMEOUT,
        _CODE.HA_NOT_AVAILABLE,  # the master has it, its slave not
        _CODE.MASTER_PERSISTENCE_TIMEOUT,
        _CODE.SLAVE_PERSISTENCE_TIMEOUT,
    }
)
_PERMANENT = frozenset({_CODE.MESSAGE_BODY_TOO_LARGE, _CODE.MESSAGE_PROPERTIES_TOO_LARGE})
_NEVER_LEFT = ("failed to connect", "name resolution", "dns resolution failed")
"""How gRPC says that there was no connection to send on; one that breaks can be refused or without a route, too."""
_NOTHING_DONE = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,  # larger than the proxy reads
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""Of a call: refused before the request was looked at. What any other leaves behind is unknown."""


class Failure:
    """Why a request failed.

    Attributes:
        code: the server's; 0 = the call itself failed.
        text: what happened, with the way out if there is a known one.
        mends: trying again may help.
        may_be_done: the server may have done it all the same.
        away: there was no answer at all.
        denied: the server knows us, and we may not.
    """

    __slots__ = ("away", "code", "denied", "may_be_done", "mends", "text")

    def __init__(
        self, code: int, text: str, *, mends: bool, may_be_done: bool, away: bool, denied: bool = False
    ) -> None:
        self.code = code
        self.text = text
        self.mends = mends
        self.may_be_done = may_be_done
        self.away = away
        self.denied = denied

    def as_error(self, where: str) -> BrokerError:
        """For whoever waited for the answer; `where` names the address and the operation."""
        return (BrokerUnavailable if self.away else BrokerError)(f"{where}: {self.text}")

    def as_publish_error(self, where: str) -> PublishError:
        """For the producer of one message."""
        is_permanent = self.code in _PERMANENT
        return PublishError(f"{where}: {self.text}", may_be_stored=self.may_be_done, is_permanent=is_permanent)


def failure_of_status(status: Any) -> Failure | None:
    """What a status says; None = all is well."""
    code = status.code
    if code == OK:
        return None
    name = _CODE.Name(code) if code in _CODE.values() else "an unknown answer"
    said = status.message.strip().splitlines()
    text = f"{name} ({code}): {said[0]}" if said and said[0] != name else f"{name} ({code})"
    denied = code == _CODE.FORBIDDEN or (code == _CODE.UNAUTHORIZED and _DENIED in text)
    hint = _RIGHTS if denied else _HINTS.get(code)
    return Failure(
        code,
        f"{text}; {hint}" if hint else text,
        mends=code in _MENDS,
        may_be_done=code in _MAY_BE_STORED,
        away=False,
        denied=denied,
    )


def failure_of_call(error: grpc.RpcError) -> Failure:
    """What became of a call that has no answer."""
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    details = (error.details() if isinstance(error, grpc.Call) else None) or str(error)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Failure(0, "no answer in time", mends=True, may_be_done=True, away=True)
    lowered = details.lower()
    never_left = code is grpc.StatusCode.UNAVAILABLE and any(mark in lowered for mark in _NEVER_LEFT)
    distrusted = never_left and "certificate" in lowered
    if "ssl" in lowered or "handshake" in lowered or "certificate" in lowered:
        hint = "; check tls and ca_file, and that the proxy's certificate has not expired"
    elif never_left:
        hint = "; check the address, and that the proxy runs and listens for gRPC there"
    elif code is grpc.StatusCode.UNIMPLEMENTED or "http" in lowered:
        hint = "; what listens there is no RocketMQ proxy: check that the port is its gRPC one (8081)"
    else:
        hint = ""
    away = code not in _NOTHING_DONE
    return Failure(
        0,
        f"{_short(details)}{hint}",
        mends=away and not distrusted,
        may_be_done=away and not never_left,
        away=away,
    )


def _short(details: str) -> str:
    """What gRPC says without its list of tried addresses."""
    return details.splitlines()[0][:300]
