"""A Kafka server that asks who you are: passwords, TLS and permissions, each on a listener of its own."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from pathlib import Path

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from tests.servers.certificates import make_authority, make_server_certificate
from tests.servers.guard import THIS_PROCESS
from tests.servers.kafka.server import HOST, KafkaServer
from tests.servers.ports import free_ports

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
TOKENS = "OAUTHBEARER"
_LOGIN = "org.apache.kafka.common.security"
_LISTENERS = {
    "PLAINTEXT": "PLAINTEXT",
    "SASL_PLAINTEXT": "SASL_PLAINTEXT",
    "SASL_SSL": "SASL_SSL",
    "SSL": "SSL",
    "EXPIRED": "SSL",
    "MUTUAL": "SSL",
    "CONTROLLER": "PLAINTEXT",
}
"""Name -> protocol."""


def token_for(user: str, valid_until: float) -> str:
    """An unsigned JSON web token; `valid_until` in epoch seconds. Source: RFC 7515 and 7519."""
    claims = {"sub": user, "iat": time.time() - 1, "exp": valid_until}
    parts = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({"alg": "none"}, claims)]
    return f"{'.'.join(parts)}."


class SecuredKafka(KafkaServer):
    """`KafkaServer` with six ways in and an authorizer behind them that denies what no rule allows.

    Attributes:
        address: no password, and everything is allowed: for what a test sets up itself.
        sasl_plaintext: asks for a user; any of `MECHANISMS`, or a token (OAUTHBEARER, unsigned: Kafka's own for tests).
        sasl_ssl: the same through TLS.
        ssl: TLS without a user; everything is allowed.
        expired: the same with a certificate whose time is over.
        mutual: TLS that asks for a client's certificate of `ca`; `/CN=client` may do everything.
        users: name -> password, the same for every mechanism: `nova` and `stranger`. Both may do nothing until `allow`.
        ca: the authority of the server's certificate, PEM.
        wrong_ca: another one, PEM.
    """

    def __init__(self, directory: Path, *, owner: int | None = THIS_PROCESS) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.users = {"nova": "nova-secret", "stranger": "stranger-secret"}
        self.ca = make_authority(directory, "ca")
        self.wrong_ca = make_authority(directory, "wrong-ca")
        ports: dict[str, int] = dict(zip(_LISTENERS, free_ports(len(_LISTENERS)), strict=True))
        self.sasl_plaintext = f"{HOST}:{ports['SASL_PLAINTEXT']}"
        self.sasl_ssl = f"{HOST}:{ports['SASL_SSL']}"
        self.ssl = f"{HOST}:{ports['SSL']}"
        self.expired = f"{HOST}:{ports['EXPIRED']}"
        self.mutual = f"{HOST}:{ports['MUTUAL']}"
        keys = make_server_certificate(directory, self.ca, HOST)
        old_keys = make_server_certificate(directory, self.ca, HOST, "expired", expired=True)
        super().__init__(
            directory,
            port=ports["PLAINTEXT"],
            extra=self._security(ports, keys, old_keys),
            format_options=[option for name in self.users for option in self._scram_user(name)],
            owner=owner,
        )

    def allow(self, user: str, *, topics: str, groups: str = "") -> None:
        """Let a user do everything to topics and groups that begin so, and create topics among them; "" = no group."""
        for kind, begins in ((ResourceType.TOPIC, topics), (ResourceType.GROUP, groups)):
            if begins:
                self.grant(user, kind, begins, AclOperation.ALL)

    def grant(self, user: str, kind: ResourceType, begins: str, *operations: AclOperation) -> None:
        """Let a user do so much to what is of this kind and begins so."""
        rules = [
            AclBinding(
                kind, begins, ResourcePatternType.PREFIXED, f"User:{user}", "*", operation, AclPermissionType.ALLOW
            )
            for operation in operations
        ]
        client = AdminClient({"bootstrap.servers": self.address})
        for future in client.create_acls(rules).values():
            future.result(10)

    def change_password(self, user: str, password: str) -> None:
        """For SCRAM-SHA-256; who is logged in stays so until it connects anew."""
        change = UserScramCredentialUpsertion(
            user, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), password.encode()
        )
        client = AdminClient({"bootstrap.servers": self.address})
        for future in client.alter_user_scram_credentials([change]).values():
            future.result(10)

    def _scram_user(self, name: str) -> list[str]:
        mechanisms = [mechanism for mechanism in MECHANISMS if mechanism.startswith("SCRAM")]
        account = f'[name="{name}",password="{self.users[name]}"]'
        return [word for mechanism in mechanisms for word in ("--add-scram", f"{mechanism}={account}")]

    def _security(self, ports: dict[str, int], keys: Path, old_keys: Path) -> dict[str, str]:
        passwords = " ".join(f'user_{name}="{password}"' for name, password in self.users.items())
        listeners = {
            "listeners": ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items()),
            "advertised.listeners": ",".join(
                f"{name}://{HOST}:{port}" for name, port in ports.items() if name != "CONTROLLER"
            ),
            "listener.security.protocol.map": ",".join(f"{name}:{_LISTENERS[name]}" for name in ports),
            "controller.quorum.voters": f"1@{HOST}:{ports['CONTROLLER']}",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS;User:CN=client",
            "sasl.enabled.mechanisms": ",".join((*MECHANISMS, TOKENS)),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keys),
            "listener.name.expired.ssl.keystore.type": "PEM",
            "listener.name.expired.ssl.keystore.location": str(old_keys),
            "listener.name.mutual.ssl.client.auth": "required",
            "listener.name.mutual.ssl.truststore.type": "PEM",
            "listener.name.mutual.ssl.truststore.location": str(self.ca),
        }
        for listener in ("sasl_plaintext", "sasl_ssl"):
            login = f"listener.name.{listener}.{{}}.sasl.jaas.config"
            listeners[login.format("plain")] = f"{_LOGIN}.plain.PlainLoginModule required {passwords};"
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                listeners[login.format(mechanism)] = f"{_LOGIN}.scram.ScramLoginModule required;"
            listeners[login.format(TOKENS.lower())] = f"{_LOGIN}.oauthbearer.OAuthBearerLoginModule required;"
        return listeners
