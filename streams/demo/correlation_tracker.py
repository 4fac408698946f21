"""How the demo's coins move together: the engines' estimate, made here of the prices that the demo sends.

The worker is not asked: it may be another process, and what it knows is its own. From the same prices the same numbers
come, to the bit.
"""

from collections import deque
from typing import NamedTuple

import orjson

from engines.models import correlation, moments
from engines.numerics.exact import ln
from engines.parameters import DecisionParams
from engines.pipeline import aggregation
from streams.history.feed import FeedEvent
from streams.processing.clock import SECOND_NS


class Together(NamedTuple):
    """How coins move together."""

    symbols: tuple[str, ...]
    """Ascending."""
    rows: tuple[tuple[float, ...], ...]
    """Raw correlations in [-1, 1]; 1 on the diagonal."""

    @property
    def mean(self) -> float | None:
        """Mean of all pairs; None where there is no pair."""
        pairs = [rho for i, row in enumerate(self.rows) for rho in row[:i]]
        return sum(pairs) / len(pairs) if pairs else None


class Heat:
    """Correlations of bar returns, from prices in event-time order; one bar behind, as bars are."""

    def __init__(self, params: DecisionParams) -> None:
        """Gather bars as wide as the settings say."""
        self._params = params.risk_management.correlation
        self._width_ns = params.market.bar_s * SECOND_NS
        self._moments = moments.begin()
        self._waiting: deque[FeedEvent] = deque()
        self._bar = -1
        self._closes: dict[str, float] = {}
        """Of the running bar."""
        self._before: dict[str, float] = {}
        """Of each symbol's last closed bar."""
        self._loaded = False
        self._seen: Together | None = None

    def load(self) -> None:
        """Compile what correlations need, or load it, off the event loop; until then `at` shows nothing."""
        aggregation.warm()
        self._loaded = True

    def sent(self, event: FeedEvent) -> None:
        """Take note of a record that is sent; only prices count."""
        if event.topic == "prices":
            self._waiting.append(event)

    def at(self, now_ns: int) -> Together | None:
        """Return what the bars that were over at `now_ns` say; None before there are two coins. Time goes forward."""
        if not self._loaded:
            return None
        bars = self._bar
        while self._waiting and self._waiting[0].time_ns <= now_ns:
            self._take(self._waiting.popleft())
        if self._bar != bars and len(self._moments.symbols) > 1:
            matrix = correlation.raw(self._moments, self._params)
            self._seen = Together(self._moments.symbols, tuple(map(tuple, matrix.tolist())))
        return self._seen

    def _take(self, event: FeedEvent) -> None:
        fields = orjson.loads(event.value)
        bar = (fields["timestamp_ns"] - 1) // self._width_ns
        if bar > self._bar:
            self._close()
            self._bar = bar
        self._closes[fields["symbol"]] = fields["price"]

    def _close(self) -> None:
        """Let the running bar move the correlations."""
        returns = {symbol: ln(p / self._before[symbol]) for symbol, p in self._closes.items() if symbol in self._before}
        self._before |= self._closes
        self._closes.clear()
        if returns:
            moments.observe(self._moments, (self._bar + 1) * self._width_ns, returns, self._params)
