"""RocketMQ for tests: `RocketServer`, and how a test finds one."""
