"""Settles claims: the outcome of every forecast that was sent, once its horizon is over.

All claims are settled, whether or not they were sized: learning would otherwise see only what it believed.
"""

import heapq
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from schemas.signal import TacticalSignal
from schemas.vocabulary import SIDE
from streams.history.candle_row import SECOND_NS
from streams.history.feed import FeedEvent
from streams.history.strategies import REACTION_NS


class OpenClaim(NamedTuple):
    """A forecast whose horizon is not over."""

    due_ns: int
    number: int
    """Order of claims that are due at one time."""
    message: TacticalSignal
    price: float
    """Last close when it was sent, USD."""


class ClaimResult(NamedTuple):
    """A forecast and what came of it, as ratios over the horizon."""

    strategy_id: str
    symbol: str
    claimed: float | None
    """Confidence times claimed return; None: no return was claimed."""
    volatility: float | None
    realised: float
    """Return on the claim's side."""


class Settlement:
    """The open claims of all portfolios. `unsettled` counts claims whose closing candle is missing."""

    def __init__(self, widths_ns: Mapping[str, int]) -> None:
        self._widths_ns = widths_ns
        self._open: dict[str, list[OpenClaim]] = {}
        self._number = 0
        self.unsettled = 0
        self.settled: list[ClaimResult] = []

    @property
    def open(self) -> int:
        """Number of claims that are not settled yet."""
        return sum(map(len, self._open.values()))

    def claim(self, message: TacticalSignal, price: float | None) -> None:
        """Take a signal that was sent; a HOLD claims nothing, and without a price nothing can be measured."""
        if not SIDE[message.action]:
            return
        if price is None:
            self.unsettled += 1
            return
        self._number += 1
        due_ns = message.timestamp_ns + int(message.horizon_s * SECOND_NS)
        heapq.heappush(self._open.setdefault(message.symbol, []), OpenClaim(due_ns, self._number, message, price))

    def due(self, symbol: str, close: float, end_ns: int) -> Iterator[FeedEvent]:
        """Yield the outcomes of a symbol's claims that are due within a second of a candle's end."""
        claims, at_ns = self._open.get(symbol, []), end_ns + REACTION_NS
        while claims and claims[0].due_ns <= at_ns:
            found = heapq.heappop(claims)
            if at_ns - found.due_ns >= self._widths_ns[symbol]:
                self.unsettled += 1
                continue
            yield self._outcome(found, close / found.price - 1.0, at_ns)

    def _outcome(self, claim: OpenClaim, realised: float, at_ns: int) -> FeedEvent:
        message = claim.message
        side = SIDE[message.action]
        stated = message.expected_return
        claimed = None if stated is None else abs(stated) * message.confidence
        self.settled.append(
            ClaimResult(message.strategy_id, message.symbol, claimed, message.predicted_volatility, side * realised)
        )
        fields: dict[str, Any] = {
            "portfolio_id": message.portfolio_id,
            "strategy_id": message.strategy_id,
            "symbol": message.symbol,
            "signal_id": message.signal_id,
            "side": side,
            "realized_return": realised,
            "holding_s": (at_ns - message.timestamp_ns) / SECOND_NS,
            "timestamp_ns": at_ns,
        }
        return FeedEvent(at_ns, "outcomes", message.symbol.encode(), orjson.dumps(fields))
