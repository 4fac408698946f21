"""The stages of the stream: ingest, market and sizing, and the topology that connects them."""
