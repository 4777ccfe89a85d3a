"""The RabbitMQ driver, over pika."""
