"""RabbitMQ's and pika's errors in Nova's words, with the way out. Pure."""

from __future__ import annotations

import re
import socket
import ssl

from pika import exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException, AMQPConnectorStackTimeout

from nova.errors import BrokerError

__all__ = ["ACCESS_REFUSED", "NOT_FOUND", "PRECONDITION_FAILED", "RESOURCE_LOCKED", "Refused", "is_final", "text_of"]

ACCESS_REFUSED = 403
NOT_FOUND = 404
RESOURCE_LOCKED = 405
PRECONDITION_FAILED = 406
NOT_ALLOWED = 530

_HINTS = {
    ACCESS_REFUSED: "grant this user configure, write and read on the prefix's exchanges and queues",
    PRECONDITION_FAILED: "something of this name exists with other settings; remove it, or use another prefix or exchange",
    NOT_ALLOWED: "create the vhost and grant this user access to it (rabbitmqctl add_vhost, set_permissions)",
}

_MUTE = (
    "what listens there says nothing; expected the greeting of an AMQP 0-9-1 server: check host and port in the URL,"
    " amqp:// or amqps://, and that the server is not paused or overloaded"
)

_ALERT = re.compile(r"\[SSL: ([A-Z0-9_]+)\]")
"""The reason in the text of an `ssl.SSLError`, which is all that pika leaves of it there."""


class Refused(BrokerError):
    """The server closed a channel over a request.

    Attributes:
        code: AMQP's reply code.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def refused(where: str, exc: exceptions.ChannelClosed) -> Refused:
    """A channel was closed; `where` names the address and the request."""
    return Refused(exc.reply_code, f"{where}: {_with_hint(exc.reply_code, exc.reply_text)}")


def is_final(exc: BaseException) -> bool:
    """Whether waiting does not help: the server knows us and does not want us."""
    cause = _root(exc)
    if isinstance(cause, exceptions.ConnectionClosed):
        return cause.reply_code in (ACCESS_REFUSED, NOT_ALLOWED)
    return isinstance(
        cause,
        exceptions.AuthenticationError
        | exceptions.ProbableAuthenticationError
        | exceptions.ProbableAccessDeniedError
        | exceptions.IncompatibleProtocolError
        | ssl.SSLError,
    )


def text_of(exc: BaseException, *, tls: bool = False) -> str:
    """What happened, and the way out if there is a known one; `tls` says that the connection was to be a TLS one."""
    cause = _root(exc)
    if isinstance(cause, exceptions.AuthenticationError | exceptions.ProbableAuthenticationError):
        return "the server refuses user or password; check both (guest is only let in from the server's own machine)"
    if isinstance(cause, exceptions.ConnectionClosed):
        if cause.reply_code == ACCESS_REFUSED:
            return f"{cause.reply_text}; check username and password"
        return _with_hint(cause.reply_code, cause.reply_text)
    if isinstance(cause, exceptions.ChannelClosed):
        return _with_hint(cause.reply_code, cause.reply_text)
    if isinstance(cause, exceptions.ProbableAccessDeniedError):
        return f"the server refuses the vhost; {_HINTS[NOT_ALLOWED]}"
    if isinstance(cause, exceptions.IncompatibleProtocolError) and tls:
        # TLS 1.3: a client that shows no certificate, or a wrong one, hears of it after its handshake, if the server's last
        # words are not lost with the connection.
        alert = _ALERT.search(str(cause))
        why = alert[1].lower().replace("_", " ") if alert else "the server ended the connection after the handshake"
        return f"TLS failed: {why}; it may ask for a certificate: check cert_file, and that it speaks AMQP 0-9-1 there"
    if isinstance(cause, exceptions.IncompatibleProtocolError):
        return "what listens there does not speak AMQP 0-9-1, or asks for TLS; check port and amqp:// or amqps://"
    if isinstance(cause, AMQPConnectorStackTimeout | exceptions.ConnectionOpenAborted):
        return _MUTE
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause}; check ca_file, cert_file and that the port speaks TLS"
    if isinstance(cause, exceptions.AMQPHeartbeatTimeout):
        return "the server was silent for two heartbeats"
    if isinstance(cause, socket.gaierror):
        return f"{cause.strerror}; check the host names in the URL"
    if isinstance(cause, OSError) and cause.strerror:
        return f"{cause.strerror}; check host and port in the URL, and that the server runs"
    return str(cause) or type(cause).__name__


def _with_hint(code: int, text: str) -> str:
    hint = _HINTS.get(code)
    return f"{text}; {hint}" if hint else text


def _root(exc: BaseException) -> BaseException:
    """The error under pika's wrappings."""
    for _ in range(10):
        inner: BaseException | None = None
        if isinstance(exc, AMQPConnectorException) or (
            isinstance(exc, exceptions.AMQPConnectionError)
            and type(exc) in (exceptions.AMQPConnectionError, exceptions.StreamLostError)
        ):
            candidates = [*getattr(exc, "exceptions", ()), getattr(exc, "exception", None), *exc.args, exc.__cause__]
            inner = next((found for found in reversed(candidates) if isinstance(found, BaseException)), None)
        if inner is None:
            return exc
        exc = inner
    return exc
