"""Sums over time in a bounded number of spans, whose width doubles whenever they become too many."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

SECOND_NS: Final = 1_000_000_000
MOST: Final = 96
"""Spans at most."""


class Span(NamedTuple):
    """Sums of one span of time."""

    begin_ns: int
    end_ns: int
    change_cents: int
    """Sum of absolute changes of the decisions in it."""
    held_before_cents: int
    """What all portfolios hold at its end under the journal's settings: sum of absolute nets by symbol."""
    held_after_cents: int


class Sums:
    """Changes by span, and what each portfolio held at each span's end. Whatever the order of joining, the same.

    >>> sums = Sums()
    >>> sums.add(1_500_000_000, "main", 300, 1000, 700)
    >>> [(span.begin_ns, span.change_cents, span.held_after_cents) for span in sums.spans()]
    [(1000000000, 300, 700)]
    """

    def __init__(self) -> None:
        self.width_s = 1
        self.changes: dict[int, int] = {}
        """Number of the span → cents."""
        self.held: dict[str, dict[int, tuple[int, int]]] = {}
        """Portfolio → span → (held before, held after) of its last decision in it."""

    def add(self, at_ns: int, portfolio: str, change_cents: int, before_cents: int, after_cents: int) -> None:
        """Add a decision; those of a portfolio come in order of time."""
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
        """Yield every span from the first decision to the last."""
        standing: dict[str, tuple[int, int]] = {}
        width_ns = self.width_s * SECOND_NS
        for span in range(min(self.changes), max(self.changes) + 1) if self.changes else ():
            for portfolio, kept in self.held.items():
                standing[portfolio] = kept.get(span, standing.get(portfolio, (0, 0)))
            yield Span(
                span * width_ns,
                (span + 1) * width_ns,
                self.changes.get(span, 0),
                sum(before for before, _ in standing.values()),
                sum(after for _, after in standing.values()),
            )

    def told(self) -> list[dict[str, Any]]:
        """Return the spans as plain JSON values."""
        return [span._asdict() for span in self.spans()]


def _wider(held: dict[int, tuple[int, int]], times: int) -> dict[int, tuple[int, int]]:
    """Return the last decision of each span of so many."""
    found: dict[int, tuple[int, int]] = {}
    for span, last in sorted(held.items()):
        found[span // times] = last
    return found
