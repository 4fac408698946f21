"""Kafka without a consumer group: brokers, topics, and reading and writing partitions."""
