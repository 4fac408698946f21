"""The core without Kafka: one class for each phase."""
