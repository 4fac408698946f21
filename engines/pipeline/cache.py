"""Cache: what decisions compute again only when its inputs change. A memo of pure functions, safe to drop.

It lives in `State.memo`, so that a state knows nothing of the pipeline, and ends with the settings it was made under.
"""

from typing import Any

from engines.models import correlation
from engines.parameters import DecisionParams
from engines.pipeline import cell_sizing
from engines.pipeline.caps import Limits
from engines.pipeline.cell_sizing import Bet, CellSize
from engines.pipeline.portfolio_sizing import Correlations
from engines.state.partition import State
from engines.state.records import Forecast
from engines.state.tables import Key

__all__ = ["DecisionCache", "bet", "correlations", "limits", "of"]


class DecisionCache:
    """Intermediate results of one state under one set of settings."""

    __slots__ = ("bets", "correlations", "limits", "moments_changes", "sizes")

    def __init__(self, params: DecisionParams) -> None:
        """Begin empty."""
        self.limits = _limits(params)
        self.bets: dict[Key, Bet] = {}
        """Stages 2 and 3 of each cell."""
        self.sizes: dict[Key, tuple[tuple[Any, ...], CellSize]] = {}
        """Stages 2 to 8 of each cell, with what they were computed from."""
        self.correlations: Correlations | None = None
        self.moments_changes = -1


def of(state: State) -> DecisionCache:
    """Return the state's cache; an empty one after a restore or a change of settings."""
    found = state.memo
    if not isinstance(found, DecisionCache):
        found = state.memo = DecisionCache(state.params)
    return found


def limits(state: State) -> Limits:
    """Return the limits of stages 11 and 13."""
    return of(state).limits


def correlations(state: State) -> Correlations:
    """Return the shrunk correlations of all symbols, valid until the next bar or other settings."""
    cache = of(state)
    if cache.correlations is None or cache.moments_changes != state.moments_changes:
        found = correlation.shrunk(state.moments, state.params.risk_management.correlation)
        cache.correlations = Correlations(state.moments.symbols, found.matrix, found.mean)
        cache.moments_changes = state.moments_changes
    return cache.correlations


def bet(state: State, key: Key, forecast: Forecast) -> Bet:
    """Return stages 2 and 3 of a cell's forecast."""
    bets = of(state).bets
    learned, scores, pool = state.posteriors.get(key), state.scores.get(key), state.pools.get(key[:2])
    standing = cell_sizing.standing(state.predictions[key], forecast, state.targets.get(key))
    known = bets.get(key)
    if (
        known is not None
        and known.forecast is forecast
        and known.learned is learned
        and known.scores is scores
        and known.pool is pool
        and known.standing == standing
    ):
        return known
    found = bets[key] = cell_sizing.bet(forecast, learned, scores, state.params, pool, standing)
    return found


def forget_cell(state: State, key: Key) -> None:
    """Drop what was computed of a cell."""
    cache = of(state)
    cache.bets.pop(key, None)
    cache.sizes.pop(key, None)


def _limits(params: DecisionParams) -> Limits:
    risk, criteria = params.risk_management, params.validation_criteria
    return Limits(
        position=risk.max_position_pct,
        strategy=risk.max_strategy_allocation,
        gross=min(risk.max_portfolio_allocation, risk.max_leverage),
        minimum_cents=int(100.0 * criteria.min_position_usd),
        maximum_cents=int(100.0 * criteria.max_position_usd),
        tolerance=risk.cap_tolerance,
    )
