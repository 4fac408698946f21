"""The stages of the stream: ingest, market, sizing, and how they are joined."""
