"""Kafka: per-task acknowledgement, durable delays and dead letters on ordinary consumer groups."""
