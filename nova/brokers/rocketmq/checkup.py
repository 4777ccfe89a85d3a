"""Reads the limits of proxies and brokers for `limits` to judge. Any thread.

A proxy has no call that tells its limits, but a refusal names the one that was passed. So it is asked for what it surely
refuses: receives and a message that are wrong in one more way than the limit, so that nothing comes of them anyhow.

Source: `ReceiveMessageActivity`, `SendMessageActivity` and `GrpcValidator` of RocketMQ's proxy.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import grpc

from nova.brokers.base import CheckRequest, Finding
from nova.brokers.rocketmq.admin import Admin, Broker
from nova.brokers.rocketmq.client import Connection, Session, producer_settings
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.rocketmq.limits import (
    BrokerFacts,
    GroupFacts,
    ProxyFacts,
    judge_broker,
    judge_groups,
    judge_no_admin,
    judge_proxy,
    judge_topics,
)
from nova.brokers.rocketmq.messages import new_id
from nova.brokers.rocketmq.names import Names
from nova.brokers.rocketmq.remoting import Refused
from nova.brokers.rocketmq.stubs import definition, service
from nova.brokers.rocketmq.topics import TopicKeeper
from nova.errors import BrokerError, BrokerUnavailable

__all__ = ["Checkup"]

NO_EXPRESSION = "||"
"""A filter that is none: looked at after the limits, and before anything is received."""
A_CENTURY = 3.2e9
"""Seconds."""
_LIMIT = re.compile(r"\b(?:min|max) is (\d+)")


class Checkup:
    """One look at a cluster."""

    def __init__(
        self, connection: Connection, admin: Admin, keeper: TopicKeeper, names: Names, config: RocketMQConfig
    ) -> None:
        self._connection = connection
        self._admin = admin
        self._keeper = keeper
        self._names = names
        self._config = config

    def look(self, request: CheckRequest) -> list[Finding]:
        """All there is to say.

        Raises:
            BrokerError: the server does not answer.
        """
        found = judge_proxy(self._ask_proxy(request.timeout), self._config)
        try:
            brokers = self._admin.reach()
            asked = self._ask_brokers(list(brokers or ()), request.group)
        except (Refused, BrokerUnavailable) as exc:
            brokers, asked = None, [judge_no_admin(str(exc))]
        if brokers is None and not asked:
            asked = [judge_no_admin("no name server answers")]
        topics = dict.fromkeys([*request.topics, *request.own_topics, self._names.near])
        looked = {topic: self._look_at(topic) for topic in topics}
        return [*found, *asked, *judge_topics(looked, can_make=brokers is not None)]

    def _ask_brokers(self, brokers: list[Broker], group: str) -> list[Finding]:
        if not brokers:
            return []
        found = [
            finding
            for broker in brokers
            for finding in judge_broker(BrokerFacts(broker.name, broker.settings(), broker.runtime()), self._config)
        ]
        names = [self._names.consumer_group(group), self._names.forwarder]
        tables = {broker.name: broker.groups() for broker in brokers}
        groups = [
            GroupFacts(name, broker, _retries(table.get(name))) for broker, table in tables.items() for name in names
        ]
        return [*found, *judge_groups(groups)]

    def _look_at(self, topic: str) -> str | None:
        """Why a topic cannot be used; "" = it can, None = it is missing."""
        try:
            return "" if self._keeper.exists(topic) else None
        except BrokerUnavailable:
            raise
        except BrokerError as exc:
            return str(exc)

    def _ask_proxy(self, timeout: float) -> ProxyFacts:
        """As a producer of no group, which the server has nothing to remember of."""
        told: list[Any] = []
        session = Session(
            self._connection, lambda: producer_settings(self._connection, self._names.probe, timeout), told.append
        )
        try:
            is_known = session.await_ready(timeout)
            return ProxyFacts(
                max_body_bytes=told[0].publishing.max_body_size if told else None,
                least_invisible_ms=self._ask_receive(session, 1, timeout) if is_known else None,
                most_invisible_ms=self._ask_receive(session, int(A_CENTURY * 1000), timeout) if is_known else None,
                most_delay_ms=self._ask_delay(session, timeout) if is_known else None,
            )
        finally:
            session.close(service.NotifyClientTerminationRequest(), timeout)

    def _ask_receive(self, session: Session, lease_ms: int, timeout: float) -> int | None:
        request = service.ReceiveMessageRequest(batch_size=1)
        request.group.name = self._names.probe
        request.message_queue.topic.name = self._names.probe
        request.filter_expression.type = definition.FilterType.TAG
        request.filter_expression.expression = NO_EXPRESSION
        request.invisible_duration.FromMilliseconds(lease_ms)
        try:
            answers = list(self._connection.stream("ReceiveMessage", request, timeout, session.client_id))
        except grpc.RpcError:
            return None
        return next((_limit_in(answer.status) for answer in answers if answer.HasField("status")), None)

    def _ask_delay(self, session: Session, timeout: float) -> int | None:
        request = service.SendMessageRequest()
        message = request.messages.add()
        message.topic.name = self._names.probe
        message.body = b"nova check"
        message.system_properties.message_id = new_id()
        message.system_properties.message_type = definition.MessageType.DELAY
        message.system_properties.delivery_timestamp.FromMilliseconds(round((time.time() + A_CENTURY) * 1000))
        try:
            answer = self._connection.call("SendMessage", request, timeout, session.client_id)
        except grpc.RpcError:
            return None
        return _limit_in(answer.status)


def _limit_in(status: Any) -> int | None:
    """The limit that a refusal names; None = it is about something else."""
    if status.code not in (definition.Code.ILLEGAL_INVISIBLE_TIME, definition.Code.ILLEGAL_DELIVERY_TIME):
        return None
    found = _LIMIT.search(status.message)
    return int(found[1]) if found else None


def _retries(group: Mapping[str, Any] | None) -> int | None:
    return None if group is None else int(group.get("retryMaxTimes", 0))
