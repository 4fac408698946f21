"""Waterfall: the signed size of every cell after each stage, and the reasons.

The step of a stage is the size after it minus the size before it, in whole cents, so the steps of a cell, of a symbol
and of the portfolio add up exactly.

Source: docs/pipeline.md.
"""

from collections.abc import Mapping, Sequence

__all__ = ["Waterfall"]

NO_REASONS: Mapping[int, str] = {}


class Waterfall:
    """The book after each stage, in order; one column per stage, one row per cell of the portfolio."""

    __slots__ = ("columns", "names", "reasons")

    def __init__(self) -> None:
        """Start without stages."""
        self.names: list[str] = []
        self.columns: list[Sequence[int]] = []
        """Signed size of each cell, by stage, in cents."""
        self.reasons: list[Mapping[int, str]] = []
        """Reasons by stage: text by index of the cell, for cells that have one."""

    def add(self, name: str, cents: Sequence[int], reasons: Mapping[int, str] = NO_REASONS) -> None:
        """Add the book after a stage."""
        self.names.append(name)
        self.columns.append(cents)
        self.reasons.append(reasons)

    @property
    def last(self) -> Sequence[int]:
        """Size of each cell after the last stage."""
        return self.columns[-1]
