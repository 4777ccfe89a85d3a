"""Kafka's errors in Nova's words: which surely stored nothing, which nobody can tell, and the way out. Pure."""

from __future__ import annotations

import re

from confluent_kafka import KafkaError, KafkaException

from nova.errors import BrokerError, BrokerUnavailable, ConfigError, PublishError, QueueFull

__all__ = [
    "broker_error",
    "closed_error",
    "code_of",
    "construction_error",
    "is_denied",
    "publish_error",
    "text_of",
    "was_denied",
]

DENIED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_MAX_SIZE_REACHED,
        KafkaError.INCONSISTENT_GROUP_PROTOCOL,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
    }
)
"""Waiting does not help against these."""

_SURELY_REFUSED = frozenset(
    {
        KafkaError._QUEUE_FULL,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_PERMANENT = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD})
_HINTS = {
    KafkaError.MSG_SIZE_TOO_LARGE: "raise max.message.bytes of the topic, or enqueue a reference to the data",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant this user Write, Read, Describe and Create on the prefix's topics",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "grant this user Read on the consumer groups that begin with the prefix and a dot",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant this user Write on the prefix's topics (before Kafka 3.0 also "
    "IdempotentWrite on the cluster)",
    KafkaError._ALL_BROKERS_DOWN: "check the address, tls and sasl_mechanism: a port that asks for more hangs up in silence",
    KafkaError.SASL_AUTHENTICATION_FAILED: "check username, password and sasl_mechanism",
    KafkaError._AUTHENTICATION: "check username, password and sasl_mechanism",
    KafkaError._SSL: "check ca_file, cert_file and key_file, that no certificate has expired, and that the port speaks TLS",
    KafkaError._RESOLVE: "check the host names in bootstrap_servers",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "create the topic, or grant Create so that Nova can",
    KafkaError.INVALID_REPLICATION_FACTOR: "the cluster has fewer brokers; lower with_kafka(replication_factor=…)",
    KafkaError.GROUP_MAX_SIZE_REACHED: "start fewer workers, or raise the broker's group.max.size",
    KafkaError.INCONSISTENT_GROUP_PROTOCOL: "another program is in this consumer group; use another topic prefix or group",
    KafkaError.INVALID_SESSION_TIMEOUT: "with_kafka(session_timeout=…) must lie between the broker's "
    "group.min.session.timeout.ms and group.max.session.timeout.ms",
    KafkaError.NOT_ENOUGH_REPLICAS: "fewer replicas are in sync than min.insync.replicas asks for",
}

_ELAPSED = re.compile(r" \(after \d+ms in state [^()]*(?:\(s\)[^()]*)?\)")
"""What librdkafka puts behind its errors: no two are the same, so that nobody can see that it is one error again."""


def text_of(error: KafkaError) -> str:
    """What happened, and the way out if there is a known one."""
    said = str(error.str())
    text = _ELAPSED.sub("", said)
    # Where the other end hung up, or said why it will: mere disconnects to the client.
    is_tls = "SSL_HANDSHAKE" in said or _refuses_certificate(error)
    code = KafkaError._SSL if is_tls else error.code()
    hint = _HINTS.get(code)
    return f"{text}; {hint}" if hint else text


def code_of(exc: KafkaException) -> int:
    """The error code inside an exception."""
    error = exc.args[0] if exc.args else None
    return error.code() if isinstance(error, KafkaError) else KafkaError._FAIL


def is_denied(error: KafkaError) -> bool:
    """Waiting does not help."""
    return error.code() in DENIED or _refuses_certificate(error)


def _refuses_certificate(error: KafkaError) -> bool:
    """A server that asks for a client's certificate says so after the handshake (TLS 1.3)."""
    said = str(error.str())
    return "tls" in said and "alert" in said and "certificate" in said


def was_denied(exc: BrokerError) -> bool:
    """An operation failed for a reason against which waiting does not help."""
    cause = exc.__cause__
    return isinstance(cause, KafkaException) and code_of(cause) in DENIED


def broker_error(where: str, exc: KafkaException) -> BrokerError:
    """An operation failed; `where` names the address and the operation."""
    error = exc.args[0] if exc.args else None
    text = text_of(error) if isinstance(error, KafkaError) else str(exc)
    away = code_of(exc) in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN)
    return (BrokerUnavailable if away else BrokerError)(f"{where}: {text}")


def publish_error(where: str, error: KafkaError) -> PublishError:
    """A message was not confirmed."""
    code = error.code()
    if code == KafkaError._QUEUE_FULL:
        return QueueFull(f"{where}: the send buffer is full; enqueue slower or raise queue.buffering.max.kbytes")
    is_permanent = code in _PERMANENT
    return PublishError(
        f"{where}: {text_of(error)}", may_be_stored=code not in _SURELY_REFUSED, is_permanent=is_permanent
    )


def closed_error(where: str) -> PublishError:
    """A message came after the end."""
    return PublishError(f"{where}: the driver is closed")


def construction_error(exc: KafkaException) -> ConfigError:
    """The client library refused its configuration."""
    error = exc.args[0] if exc.args else exc
    said = error.str() if isinstance(error, KafkaError) else str(error)
    ways = (way for name, way in _FILES.items() if name in said)
    return ConfigError(f"with_kafka: {said}; {next(ways, 'see client_config')}")


_FILES = {
    "ssl.key.location": "check key_file, and key_password if the key is encrypted",
    "ssl.certificate.location": "check cert_file: it must be a certificate in PEM",
    "ssl.ca.location": "check ca_file: it must hold certificates in PEM",
}
"""What the library calls a file -> where it was given here."""
