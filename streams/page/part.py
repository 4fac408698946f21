"""What only a worker knows, as plain values: the folded states of the journal partitions that it owns.

`observe` runs in the worker's event loop, at most once a second and only while somebody looks, so all it returns is
bounded.
"""

from collections.abc import Container, Iterable, Sequence
from math import sqrt
from typing import Any, Final

from engines.models import calibration, regime
from engines.pipeline import cache
from engines.pipeline.cache import DecisionCache
from engines.pipeline.sizing_modes import trading_states
from engines.state.partition import MARKET_WIDE, POLICY, State
from engines.state.records import Latch, Market
from engines.state.units import unit_now
from schemas.vocabulary import RECOMMENDATIONS

MILLISECOND_NS: Final = 1_000_000
BOOKS_MAX: Final = 200
"""Portfolios of one answer."""
CELLS_MAX: Final = 300
"""Cells of one answer."""
SYMBOLS_MAX: Final = 200
GRID_MAX: Final = 24
"""Symbols of the correlation grid."""
INTERVAL_SD: Final = 1.96
"""Half width of the interval of the calibration, in standard deviations."""

WorkerPart = dict[str, Any]


def observe(states: Sequence[State], portfolios: Iterable[str], symbols: Sequence[str]) -> WorkerPart:
    """Return what the states hold about portfolios, and about the market.

    `symbols`: largest first; the grid of correlations shows the first of them.
    """
    folded = [state for state in states if state.progress is not None]
    if not folded:
        return {"partitions": {}}
    newest = max(folded, key=lambda state: state.now_ns)
    wanted = dict.fromkeys(portfolios)
    books = {name: state for state in folded for (name,) in state.books if name in wanted}
    shown = sorted(books.items())[:BOOKS_MAX]
    return {
        "partitions": {state.partition: _partition(state) for state in folded},
        "limits": {state.settings_hash: _limits(state) for state in folded},
        "max_price_age_s": newest.params.validation_criteria.max_price_age_s,
        "markets": {key[0]: _market(newest, key) for key in sorted(newest.markets)[:SYMBOLS_MAX]},
        "markets_total": len(newest.markets),
        "books": {name: _book(state, name) for name, state in shown},
        "regimes": [row for state in folded for row in _regimes(state, books)][:CELLS_MAX],
        "cells": [row for state in folded for row in _cells(state, books)][:CELLS_MAX],
        "correlation": _correlation(newest, symbols),
        "scopes": {scope: word for state in folded for scope, word in state.ordered(MARKET_WIDE)},
        "modes": {scope: word for state in folded for scope, word in state.ordered(POLICY)},
    }


def _partition(state: State) -> WorkerPart:
    return {"journal_ms": state.now_ns // MILLISECOND_NS, "settings_hash": state.settings_hash}


def _limits(state: State) -> WorkerPart:
    return cache.limits(state)._asdict()


def _market(state: State, key: tuple[str, ...]) -> WorkerPart:
    market = state.markets[key]
    bars = market.bars
    return {
        "price": None if bars is None else bars.last_price,
        "unit_usd": unit_now(state, key[0]),
        "price_ms": None if bars is None else bars.last_ns // MILLISECOND_NS,
        "long": _latch(market.long),
        "short": _latch(market.short),
        "suspect": market.suspect is not None,
        "readings": _readings(market),
    }


def _latch(latch: Latch | None) -> WorkerPart | None:
    if latch is None:
        return None
    return {"score": latch.score, "level": RECOMMENDATIONS[latch.level], "raw": latch.raw, "breaches": latch.breaches}


READINGS: Final = (
    "funding_8h",
    "oi_change",
    "volume_ratio",
    "whale_pressure",
    "netflow_zscore",
    "liquidations_usd",
    "open_interest_usd",
)
"""Names of `Market.gauges`, in their order."""


def _readings(market: Market) -> dict[str, float]:
    return {name: gauge[0] for name, gauge in zip(READINGS, market.gauges, strict=False) if gauge is not None}


def _book(state: State, portfolio: str) -> WorkerPart:
    book, cells = state.book(portfolio), state.cells(portfolio)
    words = zip(cells, trading_states(state, portfolio, cells), strict=True)
    halted = {"/".join(cell): word for cell, word in words if word != "ACTIVE"}
    return {
        "value_usd": book.value_usd,
        "peak_usd": book.peak_usd,
        "drawdown": max(0.0, 1.0 - book.value_usd / book.peak_usd) if book.peak_usd > 0.0 else 0.0,
        "positions": None if book.positions is None else dict(book.positions),
        "positions_ms": book.positions_ns // MILLISECOND_NS,
        "waiting": list(book.waiting),
        "breached": book.breached,
        "halted": dict(sorted(halted.items())[:CELLS_MAX]),
    }


def _regimes(state: State, books: Container[str]) -> Iterable[WorkerPart]:
    params = state.params.position_sizing.regime_adjustment
    for key in sorted(key for key in state.regimes if key[0] in books):
        known = state.regimes[key]
        yield {
            "portfolio_id": key[0],
            "symbol": key[1],
            "confirmed": known.confirmed,
            "candidate": known.candidate,
            "progress": regime.progress(known, params),
        }


def _cells(state: State, books: Container[str]) -> Iterable[WorkerPart]:
    params = state.params.position_sizing.bayesian_kelly
    for key in sorted(key for key in state.posteriors if key[0] in books):
        data = state.posteriors[key].posterior
        belief = calibration.belief(calibration.with_prior(data, params, state.pools.get(key[:2])))
        reach = INTERVAL_SD * sqrt(belief.residual_variance / belief.precision)
        scores = state.scores.get(key)
        yield {
            "portfolio_id": key[0],
            "strategy_id": key[1],
            "symbol": key[2],
            "outcomes": data.outcomes,
            "win_rate": calibration.win_rate(data, params),
            "calibration": belief.calibration,
            "lower": belief.calibration - reach,
            "upper": belief.calibration + reach,
            "conformal_samples": 0 if scores is None else len(scores.window),
        }


def _correlation(state: State, symbols: Sequence[str]) -> WorkerPart | None:
    """Return the correlations that the last full decision was sized with, in hundredths; None before the first.

    They are read from the memo of the decisions: computing them here would cost the worker time.
    """
    memo = state.memo
    found = memo.correlations if isinstance(memo, DecisionCache) else None
    if found is None:
        return None
    places = {symbol: row for row, symbol in enumerate(found.symbols)}
    first = [symbol for symbol in symbols if symbol in places]
    rest = [symbol for symbol in found.symbols if symbol not in first]
    shown = sorted([*first, *rest][:GRID_MAX])
    rows = [[100 if a == b else round(100.0 * float(found.matrix[places[a], places[b]])) for b in shown] for a in shown]
    return {"symbols": shown, "hundredths": rows, "mean": found.mean, "symbols_total": len(found.symbols)}
