"""Position sizing without Kafka: one class per phase, for use inside another program."""

from streams.library.decisions import EnsembleAllocation, PositionSizingDecision
from streams.library.hybrid import Layer3Phase3Hybrid
from streams.library.phases import Layer3Phase1, Layer3Phase2Portfolio

__all__ = [
    "EnsembleAllocation",
    "Layer3Phase1",
    "Layer3Phase2Portfolio",
    "Layer3Phase3Hybrid",
    "PositionSizingDecision",
]
