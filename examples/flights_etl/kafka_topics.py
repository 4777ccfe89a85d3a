"""Removes a run's topics from Kafka. Nova makes topics and never deletes any: they may hold somebody's tasks."""

from __future__ import annotations

from examples.flights_etl.errors import DemoError

TIMEOUT = 10.0


def delete(servers: str, prefix: str) -> None:
    """Delete the topics whose names begin with `prefix`.

    Raises:
        DemoError: Kafka does not answer, or refuses.
    """
    # Not at the top of the module: the demo runs without Kafka's client, too.
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    try:
        topics = [topic for topic in client.list_topics(timeout=TIMEOUT).topics if topic.startswith(f"{prefix}_")]
        for deleted in client.delete_topics(topics, operation_timeout=TIMEOUT).values() if topics else ():
            deleted.result(2 * TIMEOUT)
    except KafkaException as exc:
        raise DemoError(f"kafka at {servers}: the topics of an earlier run could not be deleted: {exc}") from exc
