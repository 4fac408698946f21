"""Kafka from outside any consumer group: brokers, topics, and reading and writing partitions."""
