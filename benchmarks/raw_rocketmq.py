"""Runner: the ceiling, the official client's stubs alone. `python -m benchmarks.raw_rocketmq HOW ADDRESS TOPIC TASKS`.

The client has no batches and no ack of several, so these loops build the requests by hand, which is several times as
fast as its own calls (docs/performance.md). In: 128 messages a request, four on their way, with the properties that a
task has. Out: receives of 32, acked together, four acks on their way. Bodies are encoded and decoded by msgspec, as in
Nova.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from benchmarks import workload
from benchmarks.rocketmq_broker import config, make, until_stored
from nova.brokers.rocketmq.client import Connection, Session, consumer_settings
from nova.brokers.rocketmq.stubs import definition, service

TOGETHER = 128
OPEN = 4
AT_ONCE = 32
GROUP = "raw"

encode = msgspec.json.encode
decode = msgspec.json.decode


def publish(address: str, topic: str, tasks: int) -> None:
    """Requests of 128 messages, four on their way."""
    _publish(address, topic, tasks, TOGETHER, OPEN)


def publish_one(address: str, topic: str, tasks: int) -> None:
    """One message a request, one request at a time."""
    _publish(address, topic, tasks, 1, 1)


def handle(address: str, topic: str, tasks: int) -> None:
    """Receive 32, decode, ack them together."""
    connection = Connection(config(address), "raw")
    session = Session(connection, lambda: consumer_settings(connection, GROUP, [topic], 10), lambda settings: None)
    assert session.await_ready(10)
    receive = service.ReceiveMessageRequest(batch_size=AT_ONCE)
    receive.group.name, receive.message_queue.topic.name, receive.message_queue.id = GROUP, topic, -1
    receive.invisible_duration.FromMilliseconds(120_000)
    receive.long_polling_timeout.FromMilliseconds(5000)
    receive.filter_expression.type, receive.filter_expression.expression = definition.FilterType.TAG, "*"
    acks: deque[Any] = deque()
    tally = workload.Tally(tasks)
    while len(tally.seen) < tasks:
        ack = service.AckMessageRequest()
        ack.group.name, ack.topic.name = GROUP, topic
        for answer in connection.stream("ReceiveMessage", receive, 20.0, session.client_id):
            if answer.HasField("message"):
                system = answer.message.system_properties
                tally.one(decode(answer.message.body)["n"])
                ack.entries.add(message_id=system.message_id, receipt_handle=system.receipt_handle)
        if not ack.entries:
            break
        acks.append(connection.start("AckMessage", ack, 10.0, session.client_id))
        if len(acks) >= OPEN:
            acks.popleft().result()
    tally.handled()
    for call in acks:
        call.result()
    tally.answer(tasks)
    connection.close()


def _publish(address: str, topic: str, tasks: int, together: int, open_: int) -> None:
    make(address, topic, GROUP)
    rows = workload.bodies(tasks)
    connection = Connection(config(address), "raw")
    calls: deque[Any] = deque()
    times: list[float] = []
    while connection.call("SendMessage", _request(topic, rows[:0]), 5.0).status.code == definition.Code.TOPIC_NOT_FOUND:
        time.sleep(0.1)
    begin, cpu = time.perf_counter(), time.process_time()
    for chunk in workload.chunks(rows, together):
        start = time.perf_counter()
        calls.append(connection.start("SendMessage", _request(topic, chunk), 10.0))
        if len(calls) >= open_:
            _check(calls.popleft().result())
        times.append(1000 * (time.perf_counter() - start))
    for call in calls:
        _check(call.result())
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    connection.close()
    stored = until_stored(address, tasks, topic)
    details = {"ms": times} if together == 1 else {}
    workload.answer(tasks, seconds, workload.numbered(stored, tasks), cpu_seconds=cpu, **details)


def _request(topic: str, rows: Any) -> Any:
    request = service.SendMessageRequest()
    for body in rows:
        message = request.messages.add()
        message.topic.name = topic
        message.body = encode(body)
        message.user_properties["id"] = str(body["n"])
        message.user_properties["attempt"] = "1"
        message.user_properties["content-type"] = "application/json"
        system = message.system_properties
        system.message_id = uuid.uuid4().hex.upper()
        system.message_type = definition.MessageType.NORMAL
        system.body_encoding = definition.Encoding.IDENTITY
        system.keys.append(str(body["n"]))
    return request


def _check(answer: Any) -> None:
    assert answer.status.code == definition.Code.OK, answer.status


if __name__ == "__main__":
    how: dict[str, Callable[..., None]] = {"publish": publish, "publish_one": publish_one, "handle": handle}
    how[sys.argv[1]](sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
