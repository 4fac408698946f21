"""Stages 9 and 10: what a portfolio's cells are worth together, first over strategies, then over symbols.

The rules are `engines.models.ensemble` and `engines.pipeline.portfolio_sizing`. Here they get what is known of this
portfolio and of the market: the strategies' weights and the correlation of their forecasts, the correlations of the
symbols, and their stress.

Source: docs/pipeline.md, stages 9 and 10.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from engines.models import correlation, ensemble, moments
from engines.models.correlation import Diversification
from engines.parameters import CorrelationParams
from engines.pipeline import cache, portfolio_sizing
from engines.pipeline.caps import allowed
from engines.pipeline.cell_sizing import CellSize
from engines.pipeline.portfolio_sizing import Correlations, Reduction
from engines.pipeline.waterfall import Waterfall
from engines.state import strategies
from engines.state.holdings import Holdings
from engines.state.partition import MARKET_WIDE, State
from schemas.vocabulary import TradingState

__all__ = ["diversification", "of_strategies", "of_symbols", "warm"]

Cells = Sequence[tuple[str, str]]
NETTED = "netted"
"""Reason of stage 9: what the other side of the symbol took of the cell."""
LARGEST_STRESS = 0.9
"""κ at most: where all correlations are 1 nothing is left to solve."""


def of_strategies(
    state: State,
    name: str,
    holdings: Holdings,
    sizes: Sequence[CellSize | None],
    states: Sequence[TradingState],
    waterfall: Waterfall,
) -> dict[str, float]:
    """Stage 9: what several strategies on one symbol are worth together; return the live strategies' weights.

    At its end the opposite cells of a symbol are set off against each other. A REDUCING cell counts with what it may
    still hold: who may open nothing closes nothing of the others.
    """
    cells = holdings.cells
    live = dict.fromkeys(
        [cell[0] for cell, size in zip(cells, sizes, strict=True) if size is not None and size.bet is not None]
    )
    weights = strategies.weights_of(state, name, live)
    cents = waterfall.last
    reasons: dict[int, str] = {}
    if len(live) > 1:
        cents = ensemble.aggregate(cells, cents, weights, strategies.rho_of(state, name))
        cents, reasons = _netted(cells, cents, allowed(cents, holdings.cents, states, {}))
    waterfall.add("ensemble", cents, reasons)
    return weights


def _netted(cells: Cells, cents: list[int], counted: Sequence[int]) -> tuple[list[int], dict[int, str]]:
    """Return the sizes with opposite cells set off against each other as far as they count, and why, by cell."""
    net = ensemble.netted(cells, counted)
    contested = [symbol for (_, symbol), size, kept in zip(cells, counted, net, strict=True) if size != kept]
    if not contested:
        return cents, {}
    after = [kept if symbol in contested else size for (_, symbol), size, kept in zip(cells, cents, net, strict=True)]
    return after, {index: NETTED for index, (size, kept) in enumerate(zip(cents, after, strict=True)) if size != kept}


def of_symbols(
    state: State,
    value_usd: float,
    cells: Cells,
    sizes: Sequence[CellSize | None],
    factors: Sequence[float],
    waterfall: Waterfall,
) -> Reduction:
    """Stage 10: what risk that the symbols share leaves of them."""
    cents = waterfall.last
    nets: dict[str, int] = {}
    caps: dict[str, float] = {}
    position = cache.limits(state).position
    for (_, symbol), size, factor in zip(cells, cents, factors, strict=True):
        nets[symbol] = nets.get(symbol, 0) + size
        caps[symbol] = max(caps.get(symbol, 0.0), position * factor)
    seconds = [0.0 if size is None or size.bet is None else size.bet.moment for size in sizes]
    variances = portfolio_sizing.variances(cells, cents, seconds)
    reduction = portfolio_sizing.allocate(
        nets,
        variances,
        _correlations(state, nets),
        caps,
        cache.limits(state).gross,
        value_usd,
    )
    reasons = {}
    if reduction.reasons:
        reasons = {
            index: reduction.reasons[symbol] for index, (_, symbol) in enumerate(cells) if symbol in reduction.reasons
        }
    waterfall.add("portfolio", portfolio_sizing.reduce(cells, cents, reduction.shares), reasons)
    return reduction


def warm() -> None:
    """Compile what a decision and a bar of several symbols need, or load it: so that the first does not wait."""
    known, params = moments.begin(), CorrelationParams()
    for bar in range(1, 3):
        moments.observe(known, bar, {"A": 0.01 * bar, "B": -0.01}, params)
    correlation.alerts(known, correlation.raw(known, params), params)
    found = correlation.shrunk(known, params)
    correlations = Correlations(known.symbols, found.matrix, found.mean)
    portfolio_sizing.allocate(
        {"A": 100, "B": -100}, {"A": 1e-4, "B": 1e-4}, correlations, {"A": 1.0, "B": 1.0}, 1.0, 100.0
    )
    both = np.ones(2)
    correlation.diversification(
        both, both, portfolio_sizing.correlated(portfolio_sizing.rows_of(correlations, "AB"), found.matrix, found.mean)
    )


def diversification(state: State, nets: Mapping[str, int]) -> Diversification | None:
    """Return how diversified a book of net sizes is; None while the volatility of a symbol in it is not known."""
    held = {symbol: nets[symbol] for symbol in sorted(nets) if nets[symbol]}
    if len(held) < 2:
        return Diversification(1.0, 1.0) if held else None
    markets = state.markets
    variances = [
        market.bars.variance if (market := markets.get((symbol,))) is not None and market.bars is not None else 0.0
        for symbol in held
    ]
    if not all(variances):
        return None
    known = cache.correlations(state)
    return correlation.diversification(
        np.array(list(held.values()), np.float64),
        np.sqrt(np.array(variances, np.float64)),
        portfolio_sizing.correlated(portfolio_sizing.rows_of(known, held), known.matrix, known.mean),
    )


def _correlations(state: State, nets: Mapping[str, int]) -> Correlations:
    """Return the correlations to size with, moved towards 1 by the worst cascade in force against this book."""
    known = cache.correlations(state)
    kappa = _stress(state, nets)
    if not kappa:
        return known
    return known._replace(
        matrix=correlation.stressed(known.matrix, kappa), mean=known.mean + kappa * (1.0 - known.mean)
    )


def _stress(state: State, nets: Mapping[str, int]) -> float:
    """Return κ: the largest score in force on a side that the book takes, of a symbol or of the market, at most .9."""
    if not state.elevated:
        return 0.0
    markets = state.markets
    worst = 0.0
    for symbol, net in nets.items():
        for name in (symbol, MARKET_WIDE):
            market = markets.get((name,))
            latch = None if market is None or not net else market.long if net > 0 else market.short
            if latch is not None and latch.level and latch.score > worst:
                worst = latch.score
    return min(worst, LARGEST_STRESS)
