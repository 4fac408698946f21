"""Claims: what the signals of an entry claimed at their decision, kept until an outcome settles them.

Source: docs/pipeline.md, stage 0.
"""

from math import sqrt

from engines.pipeline import cache
from engines.pipeline.cell_sizing import SECOND_NS, CellSize, is_stale
from engines.pipeline.decide import Decision
from engines.state import strategies
from engines.state.partition import State
from engines.state.records import CellRecord, Claim, Forecast

__all__ = ["compare_forecasts", "keep_claims", "remember"]


def compare_forecasts(state: State, decision: Decision, claimed: list[tuple[str, str]]) -> None:
    """Update the correlation of strategies' forecasts with those on the symbols of this entry's signals."""
    for symbol in sorted(dict.fromkeys(symbol for _, symbol in claimed)):
        ratios = [
            size.bet.forecast_ratio
            for (_, name), size in zip(decision.holdings.cells, decision.sizes, strict=True)
            if name == symbol and size is not None and size.bet is not None
        ]
        if len(ratios) > 1:
            strategies.forecasted(state, decision.portfolio_id, ratios)


def keep_claims(
    state: State, offset: int, journaled_at_ns: int, decision: Decision, cells: list[tuple[str, str]]
) -> None:
    """Keep what the signals of this entry claimed until their outcomes come."""
    for named in dict.fromkeys(cells):
        size = decision.sizes[decision.holdings.cells.index(named)]
        key = (decision.portfolio_id, *named)
        cell = state.predictions[key]
        if size is not None and cell.forecast is not None:
            claim = _claim_of(state, offset, key, cell.forecast, size)
            state.predictions.put(key, remember(cell, claim, journaled_at_ns))


def _claim_of(state: State, offset: int, key: tuple[str, ...], forecast: Forecast, size: CellSize) -> Claim:
    target = state.targets.get(key)
    scores = state.scores.get(key)
    wanted = (cache.bet(state, key, forecast) if size.bet is None else size.bet).kelly
    return Claim(
        offset=offset,
        signal_id=forecast.signal_id,
        timestamp_ns=forecast.timestamp_ns,
        side=forecast.side,
        confidence=forecast.confidence,
        expected_return=forecast.expected_return,
        volatility=forecast.volatility,
        mean=wanted.mean,
        costs=forecast.costs,
        variance=wanted.variance,
        scale=1.0 if scores is None else sqrt(scores.mean_square),
        horizon_s=forecast.horizon_s,
        weight=0.0 if target is None else target.cents / (100.0 * state.book(key[0]).value_usd),
        gross=wanted.gross,
        price=_fresh_price(state, key[2]),
    )


def _fresh_price(state: State, symbol: str) -> float:
    """Return a symbol's price, 0 where there is none that is fresh."""
    market = state.markets.get((symbol,))
    if market is None or market.bars is None or is_stale(market.bars, state.now_ns, state.params):
        return 0.0
    return market.bars.last_price


def remember(cell: CellRecord, claim: Claim, now_ns: int, most: int = 256) -> CellRecord:
    """Add a claim; drop those older than four horizons, and the oldest above `most`."""
    claims = (*cell.claims, claim)
    first = max(0, len(claims) - most)
    while first < len(claims) and claims[first].timestamp_ns + int(4 * claims[first].horizon_s * SECOND_NS) < now_ns:
        first += 1
    return cell._replace(claims=claims[first:] if first else claims)
