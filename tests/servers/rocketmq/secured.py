"""A RocketMQ server that asks who you are, and makes no group by itself."""

from __future__ import annotations

import json

from tests.servers.rocketmq.settings import Settings

ADMIN = ("nova-admin", "admin-secret")
"""Access key and secret key of the user who may do everything."""
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
