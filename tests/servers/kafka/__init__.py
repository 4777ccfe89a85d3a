"""Apache Kafka for tests: `KafkaServer`, its secured variant, and how a test finds one."""
