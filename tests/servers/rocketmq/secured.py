"""A RocketMQ server that asks who you are, and makes no group by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence

from nova.brokers.rocketmq.admin import Broker
from tests.servers.rocketmq.settings import Settings

ADMIN = ("nova-admin", "admin-secret")
"""Access key and secret key of the user who may do everything."""
_MAKE_USER = 3001
_CHANGE_USER = 3002
_MAKE_RIGHTS = 3006
_AUTH = "org.apache.rocketmq.auth"
_PROVIDERS = {
    "authenticationProvider": f"{_AUTH}.authentication.provider.DefaultAuthenticationProvider",
    "authorizationProvider": f"{_AUTH}.authorization.provider.DefaultAuthorizationProvider",
}


def secured(settings: Settings, directory: str) -> Settings:
    """The same server with users and rights; what it knows of them is kept in a directory."""
    user = json.dumps({"username": ADMIN[0], "password": ADMIN[1]})
    inner = json.dumps({"accessKey": ADMIN[0], "secretKey": ADMIN[1]})
    broker = {
        **settings.broker,
        **_PROVIDERS,
        "autoCreateSubscriptionGroup": "false",
        "authenticationEnabled": "true",
        "authorizationEnabled": "true",
        "initAuthenticationUser": user,
        "innerClientAuthenticationCredentials": inner,
        "authenticationMetadataProvider": f"{_AUTH}.authentication.provider.LocalAuthenticationMetadataProvider",
        "authorizationMetadataProvider": f"{_AUTH}.authorization.provider.LocalAuthorizationMetadataProvider",
        "authConfigPath": directory,
    }
    return Settings(
        broker,
        {
            **settings.proxy,
            **_PROVIDERS,
            "authenticationEnabled": True,
            "authorizationEnabled": True,
            "initAuthenticationUser": user,
            "innerClientAuthenticationCredentials": inner,
            "authenticationMetadataProvider": "org.apache.rocketmq.proxy.auth.ProxyAuthenticationMetadataProvider",
            "authorizationMetadataProvider": "org.apache.rocketmq.proxy.auth.ProxyAuthorizationMetadataProvider",
        },
    )


def make_user(
    broker: Broker, name: str, resources: Sequence[str], actions: Sequence[str] = ("Pub", "Sub")
) -> tuple[str, str]:
    """A user who may publish to and receive from some topics and groups; returns access key and secret key."""
    secret = f"{name}-secret"
    user = {"username": name, "password": secret, "userType": "Normal", "userStatus": "enable"}
    broker.call(_MAKE_USER, {"username": name}, json.dumps(user).encode())
    entries = [
        {"resource": resource, "actions": list(actions), "sourceIps": [], "decision": "Allow"} for resource in resources
    ]
    if entries:
        subject = f"User:{name}"
        rights = {"subject": subject, "policies": [{"policyType": "Custom", "entries": entries}]}
        broker.call(_MAKE_RIGHTS, {"subject": subject}, json.dumps(rights).encode())
    return name, secret


def change_secret(broker: Broker, name: str, secret: str) -> None:
    """Give a user another secret key."""
    user = {"username": name, "password": secret, "userType": "Normal", "userStatus": "enable"}
    broker.call(_CHANGE_USER, {"username": name}, json.dumps(user).encode())
