"""Waterfall: a book's way through the stages, after each of them the signed size of every cell, and why.

The step of a stage is what it left less what was there before it, in whole cents: so the steps of a cell, of a symbol
and of the portfolio add up exactly.

Source: docs/pipeline.md.
"""

from collections.abc import Mapping, Sequence

__all__ = ["Waterfall"]

NO_REASONS: Mapping[int, str] = {}


class Waterfall:
    """The book after each stage, in the order of the stages; rows of a column are a portfolio's cells."""

    __slots__ = ("columns", "names", "reasons")

    def __init__(self) -> None:
        """Begin with no stage."""
        self.names: list[str] = []
        self.columns: list[Sequence[int]] = []
        """Signed size of each cell, by stage, in cents."""
        self.reasons: list[Mapping[int, str]] = []
        """Why, by stage: by index of the cell, where there is something to say."""

    def add(self, name: str, cents: Sequence[int], reasons: Mapping[int, str] = NO_REASONS) -> None:
        """Add what a stage left."""
        self.names.append(name)
        self.columns.append(cents)
        self.reasons.append(reasons)

    @property
    def last(self) -> Sequence[int]:
        """Size of each cell after the last stage."""
        return self.columns[-1]
