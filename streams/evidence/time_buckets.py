"""Sums over time in a bounded number of buckets, whose width doubles when there are too many."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

SECOND_NS: Final = 1_000_000_000
MOST: Final = 96
"""Most buckets."""


class Span(NamedTuple):
    """Sums of one time bucket."""

    begin_ns: int
    end_ns: int
    change_cents: int
    """Sum of the absolute changes of its decisions."""
    held_before_cents: int
    """Holdings of all portfolios at its end under the journal's settings: sum of absolute nets by symbol."""
    held_after_cents: int


class Sums:
    """Changes per bucket, and each portfolio's holdings at the end of each bucket. Independent of the order of joins.

    >>> sums = Sums()
    >>> sums.add(1_500_000_000, "main", 300, 1000, 700)
    >>> [(span.begin_ns, span.change_cents, span.held_after_cents) for span in sums.spans()]
    [(1000000000, 300, 700)]
    """

    def __init__(self) -> None:
        self.width_s = 1
        self.changes: dict[int, int] = {}
        """Bucket number → cents."""
        self.held: dict[str, dict[int, tuple[int, int]]] = {}
        """Portfolio → bucket number → (held before, held after) of its last decision in the bucket."""

    def add(self, at_ns: int, portfolio: str, change_cents: int, before_cents: int, after_cents: int) -> None:
        """Add a decision. Decisions of one portfolio must be added in time order."""
        span = at_ns // (self.width_s * SECOND_NS)
        self.changes[span] = self.changes.get(span, 0) + change_cents
        self.held.setdefault(portfolio, {})[span] = (before_cents, after_cents)
        while max(self.changes) - min(self.changes) >= MOST:
            self._widen()

    def join(self, other: "Sums") -> None:
        """Add the sums of other portfolios."""
        while self.width_s < other.width_s:
            self._widen()
        times = self.width_s // other.width_s
        for span, cents in other.changes.items():
            self.changes[span // times] = self.changes.get(span // times, 0) + cents
        for portfolio, held in other.held.items():
            self.held[portfolio] = _wider(held, times)
        while self.changes and max(self.changes) - min(self.changes) >= MOST:
            self._widen()

    def _widen(self) -> None:
        self.width_s *= 2
        changes: dict[int, int] = {}
        for span, cents in self.changes.items():
            changes[span // 2] = changes.get(span // 2, 0) + cents
        self.changes = changes
        self.held = {portfolio: _wider(held, 2) for portfolio, held in self.held.items()}

    def spans(self) -> Iterator[Span]:
        """Yield every bucket from the first decision to the last."""
        current: dict[str, tuple[int, int]] = {}
        width_ns = self.width_s * SECOND_NS
        for span in range(min(self.changes), max(self.changes) + 1) if self.changes else ():
            for portfolio, kept in self.held.items():
                current[portfolio] = kept.get(span, current.get(portfolio, (0, 0)))
            yield Span(
                span * width_ns,
                (span + 1) * width_ns,
                self.changes.get(span, 0),
                sum(before for before, _ in current.values()),
                sum(after for _, after in current.values()),
            )

    def as_list(self) -> list[dict[str, Any]]:
        """Return the buckets as plain JSON values."""
        return [span._asdict() for span in self.spans()]


def _wider(held: dict[int, tuple[int, int]], times: int) -> dict[int, tuple[int, int]]:
    """Return the last decision of each bucket that is `times` as wide."""
    found: dict[int, tuple[int, int]] = {}
    for span, last in sorted(held.items()):
        found[span // times] = last
    return found
