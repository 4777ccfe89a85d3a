"""Topics, groups and positions, asked of the brokers' own port: what the gRPC proxy cannot do.

The name server says which brokers there are; each is asked for itself. Any thread.

Source: RocketMQ `RequestCode`, `AdminBrokerProcessor`, `ConsumerManageProcessor`.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.rocketmq.names import NORMAL
from nova.brokers.rocketmq.remoting import Refused, Remoting
from nova.errors import BrokerUnavailable, NotSupported

__all__ = ["Admin", "Broker"]

_PULL = 11
_QUERY_OFFSET = 14
_UPDATE_OFFSET = 15
_MAKE_TOPIC = 17
_ALL_TOPICS = 21
_GET_SETTINGS = 26
_RUNTIME = 28
_END = 30
_START = 31
_LOCK = 41
_UNLOCK = 42
_ALL_OFFSETS = 43
_ROUTE = 105
_CLUSTER = 106
_MAKE_GROUP = 200
_ALL_GROUPS = 201
_CONNECTIONS = 203
_DELETE_GROUP = 207
_PROGRESS = 208
_DELETE_TOPIC = 215
_DELETE_TOPIC_OF_NAMES = 216
_GET_TOPIC = 351

_NOTHING_PULLED = (19, 20, 21)
"""Nothing there, try again, no such offset: with where to go on."""
NO_TOPIC = 17
NOT_FOUND = 22
NOBODY_CONNECTED = 206
ASK_AGAIN = 30.0
"""Seconds for which the list of brokers is believed, and that there is no name server where none was named."""
_TYPE = "message.type"
_PROGRESS_ENTRY = re.compile(r'"(brokerOffset|consumerOffset|pullOffset)":(-?[0-9]+)')
"""Of an answer whose keys are objects, which is no JSON."""


class Broker:
    """One broker: what it is asked."""

    def __init__(self, name: str, link: Remoting) -> None:
        self.name = name
        self._link = link

    def call(self, code: int, fields: Mapping[str, Any] | None = None, body: bytes = b"") -> Any:
        """Ask; see `Remoting.call`."""
        return self._link.call(code, fields, body)

    def topic(self, topic: str) -> dict[str, Any] | None:
        """What the topic is like; None = there is none."""
        try:
            found = self.call(_GET_TOPIC, {"topic": topic, "lo": True})
        except Refused as exc:
            if exc.code == NO_TOPIC:
                return None
            raise
        return _as_dict(loads(found.body))

    def make_topic(self, topic: str, kind: str, queues: int) -> None:
        """Make or change a topic."""
        fields = {
            "topic": topic,
            "defaultTopic": "TBW102",
            "readQueueNums": queues,
            "writeQueueNums": queues,
            "perm": 6,
            "topicFilterType": "SINGLE_TAG",
            "topicSysFlag": 0,
            "order": False,
            "attributes": f"+{_TYPE}={kind}",
        }
        self.call(_MAKE_TOPIC, fields)

    def delete_topic(self, topic: str) -> None:
        """Delete what there is of it."""
        self.call(_DELETE_TOPIC, {"topic": topic})

    def group(self, group: str) -> dict[str, Any] | None:
        """What the consumer group is like; None = there is none.

        Out of the list of all: a server that is asked for one by name (352) makes it, with 16 retries.
        """
        return self.groups().get(group)

    def groups(self) -> dict[str, dict[str, Any]]:
        """All consumer groups, and what they are like."""
        return _as_dict(loads(self.call(_ALL_GROUPS).body)).get("subscriptionGroupTable") or {}

    def topics(self) -> list[str]:
        """The names of all topics, those of the server's own included."""
        return list(_as_dict(loads(self.call(_ALL_TOPICS).body)).get("topicConfigTable") or {})

    def make_group(self, group: str, max_retries: int) -> None:
        """Make or change a consumer group."""
        settings = {
            "groupName": group,
            "consumeEnable": True,
            "consumeFromMinEnable": True,
            "consumeBroadcastEnable": False,
            "retryQueueNums": 1,
            "retryMaxTimes": max_retries,
            "brokerId": 0,
            "whichBrokerWhenConsumeSlowly": 1,
            "notifyConsumerIdsChangedEnable": True,
        }
        self.call(_MAKE_GROUP, None, json.dumps(settings).encode())

    def delete_group(self, group: str) -> None:
        """Delete it, and where it stands in every topic."""
        self.call(_DELETE_GROUP, {"groupName": group, "cleanOffset": True})

    def is_connected(self, group: str) -> bool:
        """Whether a consumer of the group is."""
        try:
            found = self.call(_CONNECTIONS, {"consumerGroup": group})
        except Refused as exc:
            if exc.code == NOBODY_CONNECTED:
                return False
            raise
        return bool(_as_dict(loads(found.body)).get("connectionSet"))

    def end(self, topic: str, queue: int) -> int:
        """Behind the last message of a queue; 0 for a topic that is not there."""
        return self._position(_END, topic, queue)

    def start(self, topic: str, queue: int) -> int:
        """The first message of a queue that is still there."""
        return self._position(_START, topic, queue)

    def position(self, group: str, topic: str, queue: int) -> int | None:
        """Up to where the group was handed out a queue's messages; None = it has none there."""
        try:
            found = self.call(_QUERY_OFFSET, {"consumerGroup": group, "topic": topic, "queueId": queue})
        except Refused as exc:
            if exc.code in (NOT_FOUND, NO_TOPIC):
                return None
            raise
        return int(found.fields["offset"])

    def left(self, group: str, topic: str) -> int:
        """Messages of a topic that the group has not been handed out yet; 0 for a topic that is not there.

        A broker with `popConsumerKVServiceEnable` moves the position at the ack, and at the hand-out only the pull offset.
        """
        try:
            found = self.call(_PROGRESS, {"consumerGroup": group, "topic": topic})
        except Refused as exc:
            if exc.code in (NO_TOPIC, NOT_FOUND):
                return 0
            raise
        left = 0
        for text in found.body.decode().split("{", 3)[-1].split("},"):
            numbers = {name: int(number) for name, number in _PROGRESS_ENTRY.findall(text)}
            if "brokerOffset" in numbers:
                left += max(0, numbers["brokerOffset"] - max(numbers["consumerOffset"], numbers.get("pullOffset", 0)))
        return left

    def set_position(self, group: str, topic: str, queue: int, offset: int) -> None:
        """Say where a group begins. A number of a queue that is none keeps any other number."""
        self.call(_UPDATE_OFFSET, {"consumerGroup": group, "topic": topic, "queueId": queue, "commitOffset": offset})

    def positions(self) -> dict[str, dict[int, int]]:
        """Every position of every group, by `topic@group`."""
        table = _as_dict(loads(self.call(_ALL_OFFSETS).body)).get("offsetTable") or {}
        return {key: {int(queue): offset for queue, offset in found.items()} for key, found in table.items()}

    def try_lock(self, name: str, topic: str, owner: str) -> bool:
        """Take the lock of a name for at most a minute; False = another has it."""
        found = self.call(_LOCK, None, self._lock_body(name, topic, owner))
        return bool(_as_dict(loads(found.body)).get("lockOKMQSet"))

    def unlock(self, name: str, topic: str, owner: str) -> None:
        """Give the lock back."""
        self.call(_UNLOCK, None, self._lock_body(name, topic, owner))

    def pull(self, group: str, topic: str, queue: int, offset: int, count: int) -> tuple[bytes, int]:
        """Messages as they lie in the log, from an offset on, and where to go on; (b"", n) = there are none."""
        fields = {
            "consumerGroup": group,
            "topic": topic,
            "queueId": queue,
            "queueOffset": offset,
            "maxMsgNums": count,
            "sysFlag": 4,  # with a subscription of its own; waits for nothing, commits nothing
            "commitOffset": 0,
            "suspendTimeoutMillis": 0,
            "subscription": "*",
            "subVersion": 0,
            "expressionType": "TAG",
        }
        try:
            found = self.call(_PULL, fields)
        except Refused as exc:
            if exc.code not in _NOTHING_PULLED:
                raise
            return b"", int(exc.fields.get("nextBeginOffset", offset))
        return found.body, int(found.fields["nextBeginOffset"])

    def settings(self) -> dict[str, str]:
        """The broker's own settings."""
        text = self.call(_GET_SETTINGS).body.decode(errors="replace")
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def runtime(self) -> dict[str, str]:
        """What the broker tells of its run, such as `brokerVersionDesc` and, how full its disk is, `commitLogDiskRatio`."""
        table = _as_dict(loads(self.call(_RUNTIME).body)).get("table") or {}
        return {str(name): str(value) for name, value in table.items()}

    def close(self) -> None:
        """Let go."""
        self._link.close()

    def _position(self, code: int, topic: str, queue: int) -> int:
        try:
            return int(self.call(code, {"topic": topic, "queueId": queue}).fields["offset"])
        except Refused as exc:
            if exc.code in (NO_TOPIC, NOT_FOUND):
                return 0
            raise

    def _lock_body(self, name: str, topic: str, owner: str) -> bytes:
        queue = {"topic": topic, "brokerName": self.name, "queueId": 0}
        return json.dumps({"consumerGroup": name, "clientId": owner, "mqSet": [queue]}).encode()


class Admin:
    """The brokers of a cluster.

    Args:
        where: the address, for messages.
        timeout: seconds a question may take.
    """

    def __init__(self, config: RocketMQConfig, where: str, timeout: float) -> None:
        self._keys = config.keys
        self._servers = [str(node) for node in config.name_servers]
        self._given = config.admin is not None
        self._where = where
        self._timeout = timeout
        self._brokers: dict[str, Broker] = {}
        self._asked: float | None = None
        self._names: Remoting | None = None
        self._using = threading.Lock()

    def reach(self) -> Sequence[Broker] | None:
        """The brokers; None = no name server or broker can be reached.

        Raises:
            BrokerError: they are there and refuse us.
        """
        if not self._servers:
            return None
        with self._using:
            if self._asked is not None and time.monotonic() - self._asked < ASK_AGAIN:
                return list(self._brokers.values()) or None
            try:
                return self._look()
            except BrokerUnavailable:
                if self._given and not self._brokers:
                    raise
                self._asked = time.monotonic()  # what is known of the brokers holds without a name server, too
                return list(self._brokers.values()) or None

    def brokers(self, what: str) -> Sequence[Broker]:
        """The brokers, for something that only they can do.

        Raises:
            NotSupported: none can be reached.
            BrokerError: they refuse us.
        """
        found = self.reach()
        if found is None:
            raise NotSupported(
                f"{self._where}: {what} needs the brokers' own port, and no name server answers at "
                f"{', '.join(self._servers) or 'any address'}; give with_rocketmq(admin='host:9876')"
            )
        return found

    def has_route(self, topic: str) -> bool:
        """Whether the name server knows who has a topic: the proxy must not be asked before, it remembers a no for 20 s."""
        with self._using:
            try:
                self._ask_names(_ROUTE, {"topic": topic})
            except Refused as exc:
                if exc.code == NO_TOPIC:
                    return False
                raise
        return True

    def delete_topic(self, topic: str) -> None:
        """From every broker and from the name server."""
        for broker in self.brokers("deleting a topic"):
            broker.delete_topic(topic)
        with self._using:
            self._ask_names(_DELETE_TOPIC_OF_NAMES, {"topic": topic})

    def close(self) -> None:
        """Let go."""
        with self._using:
            for broker in self._brokers.values():
                broker.close()
            if self._names is not None:
                self._names.close()

    def _look(self) -> Sequence[Broker]:
        found = _as_dict(loads(self._ask_names(_CLUSTER).body)).get("brokerAddrTable") or {}
        brokers: dict[str, Broker] = {}
        for name, entry in sorted(found.items()):
            address = entry["brokerAddrs"].get("0")
            if address is not None:
                known = self._brokers.pop(f"{name} {address}", None)
                brokers[f"{name} {address}"] = known or Broker(name, Remoting(address, self._keys, self._timeout))
        if not brokers:
            raise BrokerUnavailable(f"{self._where}: the name server {', '.join(self._servers)} knows no broker")
        for gone in self._brokers.values():
            gone.close()
        self._brokers, self._asked = brokers, time.monotonic()
        return list(brokers.values())

    def _ask_names(self, code: int, fields: Mapping[str, Any] | None = None) -> Any:
        failed: BrokerUnavailable | None = None
        servers = [self._names] if self._names is not None else []
        servers += [Remoting(server, self._keys, min(self._timeout, 3.0)) for server in self._servers]
        for server in servers:
            try:
                answer = server.call(code, fields)
            except BrokerUnavailable as exc:
                failed = exc
                server.close()
                continue
            except Refused:
                self._names = server
                raise
            self._names = server
            return answer
        self._names = None
        raise BrokerUnavailable(f"{self._where}: no name server answers: {failed}") from failed


def type_of(topic: Mapping[str, Any]) -> str:
    """A topic's message type; one that was made before RocketMQ 5 says none and is NORMAL."""
    attributes = topic.get("attributes") or {}
    return str(attributes.get(_TYPE) or attributes.get(f"+{_TYPE}") or NORMAL)


def loads(body: bytes) -> Any:
    """JSON as the servers write it: numbers as keys stand there without quotes."""
    return json.loads(re.sub(rb"([{,])(-?[0-9]+):", lambda found: found[1] + b'"' + found[2] + b'":', body))


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
