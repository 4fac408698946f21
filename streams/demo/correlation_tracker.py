"""The demo's correlation panel: the engines' estimate, computed from the prices the demo sends.

It does not query the worker, which may be another process. The same prices give bit-identical numbers.
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


class CorrelationView(NamedTuple):
    """Pairwise correlations at one moment."""

    symbols: tuple[str, ...]
    """Sorted."""
    rows: tuple[tuple[float, ...], ...]
    """Raw correlations in [-1, 1]; 1 on the diagonal."""

    @property
    def mean(self) -> float | None:
        """Mean over all pairs; None without a pair."""
        pairs = [rho for i, row in enumerate(self.rows) for rho in row[:i]]
        return sum(pairs) / len(pairs) if pairs else None


class CorrelationTracker:
    """Correlations of bar returns, from prices in event-time order. Lags by one bar: only closed bars count."""

    def __init__(self, params: DecisionParams) -> None:
        """Use the bar width and correlation settings of `params`."""
        self._params = params.risk_management.correlation
        self._width_ns = params.market.bar_s * SECOND_NS
        self._moments = moments.begin()
        self._waiting: deque[FeedEvent] = deque()
        self._bar = -1
        self._closes: dict[str, float] = {}
        """Closes of the open bar, by symbol."""
        self._before: dict[str, float] = {}
        """Close of each symbol's last closed bar."""
        self._loaded = False
        self._seen: CorrelationView | None = None

    def load(self) -> None:
        """Compile the correlation code or load it from the cache, off the event loop; until then `at` is None."""
        aggregation.warm()
        self._loaded = True

    def sent(self, event: FeedEvent) -> None:
        """Record an event that is sent; only prices count."""
        if event.topic == "prices":
            self._waiting.append(event)

    def at(self, now_ns: int) -> CorrelationView | None:
        """Return the correlations of the bars closed by `now_ns`, which must not decrease; None below two coins."""
        if not self._loaded:
            return None
        bars = self._bar
        while self._waiting and self._waiting[0].time_ns <= now_ns:
            self._take(self._waiting.popleft())
        if self._bar != bars and len(self._moments.symbols) > 1:
            matrix = correlation.raw(self._moments, self._params)
            self._seen = CorrelationView(self._moments.symbols, tuple(map(tuple, matrix.tolist())))
        return self._seen

    def _take(self, event: FeedEvent) -> None:
        fields = orjson.loads(event.value)
        bar = (fields["timestamp_ns"] - 1) // self._width_ns
        if bar > self._bar:
            self._close()
            self._bar = bar
        self._closes[fields["symbol"]] = fields["price"]

    def _close(self) -> None:
        """Close the open bar and update the correlations."""
        returns = {symbol: ln(p / self._before[symbol]) for symbol, p in self._closes.items() if symbol in self._before}
        self._before |= self._closes
        self._closes.clear()
        if returns:
            moments.observe(self._moments, (self._bar + 1) * self._width_ns, returns, self._params)
