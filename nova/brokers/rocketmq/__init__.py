"""The RocketMQ driver: the official client's gRPC stubs for tasks, the brokers' admin port for topics and groups."""
