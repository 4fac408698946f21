"""Strategies of a portfolio: their weights, how alike their forecasts are, and how far their weights have drifted.

A strategy joins at its first signal, learns from its outcomes, and leaves when it has been silent for too long. The
rules are `engines.models.ensemble`; here is the record that they move.

Source: docs/pipeline.md, stage 9; docs/methods.md, section 8.
"""

from collections.abc import Iterable, Sequence

from engines.models import ensemble
from engines.models.ensemble import Drift, StrategyWeight
from engines.parameters import EnsembleParams
from engines.state.partition import State
from engines.state.records import Strategies

__all__ = ["drift_of", "forecasted", "learn", "leave", "rho_of", "seen", "weights_of"]

SECOND_NS = 1_000_000_000
HEARD_EVERY_NS = 3_600 * SECOND_NS
"""How often it is written down that a strategy still speaks: so none leaves before it has been silent long enough."""
NOBODY = Strategies((), (), (), (), None, Drift(0.0, alert=False, drifted=(), largest=0.0))


def seen(state: State, portfolio: str, strategy: str) -> bool:
    """Record that a strategy has sent a signal: strategies silent for too long leave, then a new one joins.

    Returns:
        Whether the weights of those that are left have now drifted to the threshold.
    """
    record = _of(state, portfolio)
    now_ns = state.now_ns
    if strategy in record.names and now_ns - record.heard_ns[record.names.index(strategy)] < HEARD_EVERY_NS:
        return False
    heard = {**dict(zip(record.names, record.heard_ns, strict=True)), strategy: now_ns}
    oldest_ns = now_ns - _params(state).inactive_after_s * SECOND_NS - HEARD_EVERY_NS
    weights = _weights(record)
    for name in [name for name, heard_ns in heard.items() if heard_ns < oldest_ns]:
        weights = ensemble.leave(weights, name)
    return _put(state, portfolio, record, ensemble.join(weights, strategy), heard)


def learn(
    state: State, portfolio: str, strategy: str, side: int, realised: float, volatility: float, weight: float
) -> bool:
    """Take a strategy's outcome; return whether its portfolio's weights have now drifted to the threshold.

    Args:
        state: changed in place.
        portfolio: whose strategies learn.
        strategy: whose outcome it is.
        side: of the claim, ±1.
        realised: the asset's return.
        volatility: s of the claim.
        weight: in (0, 1], less where outcomes overlap: the loss counts by so much, the neutral one for the rest.
    """
    record = _of(state, portfolio)
    loss = ensemble.loss(side, realised, volatility)
    felt = ensemble.NEUTRAL + weight * (loss - ensemble.NEUTRAL)
    weights = ensemble.observe(_weights(record), strategy, felt, _params(state))
    heard = {strategy: state.now_ns, **dict(zip(record.names, record.heard_ns, strict=True))}
    return _put(state, portfolio, record, weights, heard)


def leave(state: State, portfolio: str, strategy: str) -> bool:
    """Remove a strategy; return whether the weights of those that are left have now drifted to the threshold."""
    record = _of(state, portfolio)
    if strategy not in record.names:
        return False
    if len(record.names) == 1:
        state.strategies.drop((portfolio,))
        return False
    heard = dict(zip(record.names, record.heard_ns, strict=True))
    return _put(state, portfolio, record, ensemble.leave(_weights(record), strategy), heard)


def forecasted(state: State, portfolio: str, forecasts: Sequence[float]) -> None:
    """Take the forecasts of a symbol's live cells, at a signal on it."""
    record = _of(state, portfolio)
    after = ensemble.observe_forecasts(record.forecasts, forecasts, _params(state))
    if after is not record.forecasts:
        state.strategies.put((portfolio,), record._replace(forecasts=after))


def weights_of(state: State, portfolio: str, live: Iterable[str]) -> dict[str, float]:
    """Return h: the weights of these strategies, by name, which sum to 1."""
    names = tuple(live)
    if len(names) == 1:
        return {names[0]: 1.0}
    record = _of(state, portfolio)
    last = state.shares.get(portfolio)
    if last is not None and last[0] is record and last[1] == names:
        return last[2]
    found = ensemble.renormalised(_weights(record), names)
    state.shares[portfolio] = (record, names, found)
    return found


def rho_of(state: State, portfolio: str) -> float:
    """Return ρ: how alike the forecasts of a portfolio's strategies are, in [0, 1]."""
    return ensemble.correlation(_of(state, portfolio).forecasts, _params(state))


def drift_of(state: State, portfolio: str) -> Drift:
    """Return how far the weights were from their reference when they last moved."""
    return _of(state, portfolio).drift


def _of(state: State, portfolio: str) -> Strategies:
    return state.strategies.get((portfolio,), NOBODY)


def _params(state: State) -> EnsembleParams:
    return state.params.position_sizing.ensemble


def _weights(record: Strategies) -> dict[str, StrategyWeight]:
    rows = zip(record.names, record.weights, record.references, strict=True)
    return {name: StrategyWeight(weight, reference) for name, weight, reference in rows}


def _put(
    state: State, portfolio: str, before: Strategies, weights: dict[str, StrategyWeight], heard: dict[str, int]
) -> bool:
    """Store the record with these weights; return whether they have now drifted to the threshold."""
    after = Strategies(
        tuple(weights),
        tuple(each.weight for each in weights.values()),
        tuple(each.reference for each in weights.values()),
        tuple(heard[name] for name in weights),
        before.forecasts,
        ensemble.drift(weights, state.params.risk_management.drift_alert_threshold),
    )
    state.strategies.put((portfolio,), after)
    return after.drift.alert and not before.drift.alert
