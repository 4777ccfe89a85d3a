"""Looking at key files and tokens once before any client does, so that what is wrong with them is said at once. Pure."""

from __future__ import annotations

import os

from nova.brokers.kafka.config import KafkaConfig
from nova.errors import BrokerUnavailable, ConfigError

__all__ = ["check_credentials"]


def check_credentials(config: KafkaConfig, where: str) -> None:
    """See that the files can be read and that `oauth_token` returns one.

    librdkafka names a file that is missing by an error of OpenSSL, and waits ten seconds for a token that never comes.

    Raises:
        BrokerUnavailable: `oauth_token` raised.
        ConfigError: a file cannot be read, or `oauth_token` returned no token.
    """
    for name in ("ca_file", "cert_file", "key_file"):
        path = getattr(config, name)
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigError(f"with_kafka({name}): cannot read {path!r}")
    if config.oauth_token is not None:
        _check_token(config, where)


def _check_token(config: KafkaConfig, where: str) -> None:
    assert config.oauth_token is not None
    try:
        found: object = config.oauth_token(str(config.client_config.get("sasl.oauthbearer.config", "")))
    except Exception as exc:
        raise BrokerUnavailable(f"{where}: oauth_token raised {type(exc).__name__}: {exc}") from exc
    if not isinstance(found, tuple) or [type(part) for part in found[:2]] not in ([str, float], [str, int]):
        raise ConfigError("with_kafka(oauth_token): expected it to return (token, epoch seconds until it is valid)")
