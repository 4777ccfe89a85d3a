"""The consumer groups behind Nova's groups: who is connected, and forgetting what they committed. Any thread."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from nova.brokers.kafka.admin import Admin
from nova.brokers.kafka.failures import broker_error, code_of
from nova.brokers.kafka.names import Names
from nova.brokers.refusals import group_in_use
from nova.errors import BrokerError

__all__ = ["KILLED_COUNTS", "Members"]

KILLED_COUNTS = "until its session_timeout is over"

_MAY_NOT_DELETE = "refused; grant this user Delete on the consumer groups that begin with the prefix and a dot"


class Members:
    """Questions about the consumer groups of one prefix.

    Args:
        where: the broker's address, for messages.
    """

    def __init__(self, admin: Admin, names: Names, where: str) -> None:
        self._admin = admin
        self._names = names
        self._where = where

    def active(self, groups: Iterable[str], timeout: float) -> set[str]:
        """Those of these Nova groups that have a member.

        Raises:
            BrokerError: the broker does not tell.
        """
        owners = {name: group for group in groups for name in self._names.consumer_groups(group)}
        if not owners:
            return set()

        def question(client: AdminClient, seconds: float) -> set[str]:
            futures = client.describe_consumer_groups(list(owners), request_timeout=seconds)
            return {owners[name] for name, future in futures.items() if future.result(seconds + 1).members}

        return self._admin.ask(f"{self._where}: describing consumer groups", question, timeout)

    def forget(self, group: str, timeout: float) -> None:
        """Delete what the group has committed.

        Raises:
            BrokerError: a member is connected, or the broker refuses.
        """

        def question(client: AdminClient, seconds: float) -> None:
            futures = client.delete_consumer_groups(self._names.consumer_groups(group), request_timeout=seconds)
            for name, future in futures.items():
                try:
                    future.result(seconds + 1)
                except KafkaException as exc:
                    code = code_of(exc)
                    if code == KafkaError.NON_EMPTY_GROUP:
                        raise group_in_use(self._where, group, KILLED_COUNTS) from exc
                    if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
                        raise BrokerError(
                            f"{self._where}: deleting consumer group {name!r}: {_MAY_NOT_DELETE}"
                        ) from exc
                    if code != KafkaError.GROUP_ID_NOT_FOUND:
                        raise broker_error(f"{self._where}: deleting consumer group {name!r}", exc) from exc

        self._admin.ask(f"{self._where}: deleting consumer groups", question, timeout)
