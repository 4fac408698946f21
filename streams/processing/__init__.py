"""Processors, their ports and checkpoints: how the fold of a partition survives crashes."""
