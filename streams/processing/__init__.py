"""Processors, their ports and checkpoints: how a fold on a partition survives crashes."""
