"""RabbitMQ for tests: `RabbitServer`, and how a test finds one."""
