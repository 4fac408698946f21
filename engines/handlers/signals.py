"""Fold a signal: its forecast replaces the cell's, its regime votes, and its portfolio decides.

Source: docs/pipeline.md, stages 0 and 1.
"""

from typing import Any

from engines.handlers import silence, slots
from engines.handlers.effects import FoldResult, Journaled, Refusal, alert, warn_of_drift
from engines.handlers.market import funding_8h
from engines.handlers.outcomes import round_trip
from engines.models import bars, calibration, regime
from engines.pipeline.decide import Trigger
from engines.state import capacity, strategies
from engines.state.partition import State
from engines.state.records import CellRecord, Forecast
from schemas.vocabulary import SIDE, plain_word

SECOND_NS = 1_000_000_000
SEEN = 64
CLIPPED_IN_A_ROW = 3
"""Claims that are clipped one after the other until an alert is raised: one may be a slip, three are a habit."""


def fold_signal(state: State, entry: Journaled, body: dict[str, Any], folded: FoldResult) -> None:
    """Fold one signal; a repeat or an older one is dropped and noted, an unknown regime is refused."""
    portfolio, strategy, symbol = key = (body.get("portfolio_id", "main"), body["strategy_id"], body["symbol"])
    label = regime.resolve(body["regime"], state.params.position_sizing.regime_adjustment)
    if label is None:
        text = f"{entry.topic or 'call'}: regime must be a known regime or alias, was {body['regime']!r}"
        folded.refusals.append(Refusal(entry.topic, "unknown_value", "regime", text))
        return
    signal_id = body.get("signal_id") or _place_of(entry)
    cell = state.predictions.get(key)
    timestamp_ns = body["timestamp_ns"]
    if cell is not None and signal_id in cell.seen:
        folded.note("duplicate_signal", strategy)
        return
    if cell is not None and timestamp_ns < cell.last_ns:
        folded.note("older_signal", strategy)
        return
    if not _is_allowed(state, entry, portfolio, strategy, folded):
        return
    if cell is None:
        slots.make_room(state, entry.offset, key, folded)
        broken = capacity.no_room_for_cell(state, key)
        if broken is not None:
            folded.refuse(entry, *broken)
            return
    side = SIDE[plain_word(body["action"])]  # type: ignore[index]
    seen = (signal_id,) if cell is None else (*cell.seen[1 - SEEN :], signal_id)
    known = CellRecord(None, (), timestamp_ns, seen) if cell is None else cell._replace(last_ns=timestamp_ns, seen=seen)
    if side:
        if strategies.seen(state, portfolio, strategy):
            warn_of_drift(state, folded, entry.offset, portfolio)
        forecast = _forecast(state, body, signal_id, side)
        known = _count_clipped(state, entry.offset, key, known, forecast, folded)
        known = silence.of_outcomes(state, entry.offset, folded, key, known)
        known = _renewed(known, forecast, state.params.position_sizing.bayesian_kelly.renewal_decay)
        folded.claimed.setdefault(portfolio, []).append((strategy, symbol))
        _vote(state, portfolio, symbol, label, timestamp_ns, folded)
    state.put_cell(key, known)
    folded.call_for(
        portfolio, Trigger("signal", signal_id, mode="full" if side else "scale_down", cell=(strategy, symbol))
    )


def _is_allowed(state: State, entry: Journaled, portfolio: str, strategy: str, folded: FoldResult) -> bool:
    """Return whether a portfolio takes the signals of a strategy; refuse the signal otherwise."""
    allowed = state.params.portfolio.allowed_strategies.get(portfolio)
    if allowed is None or strategy in allowed:
        return True
    rule = f"must be one of the {len(allowed)} that portfolio.allowed_strategies names for {portfolio}"
    text = f"{entry.topic or 'call'}: strategy_id {rule}, was {strategy!r}"
    folded.refusals.append(Refusal(entry.topic, "unknown_value", "strategy_id", text))
    return False


def _renewed(cell: CellRecord, forecast: Forecast, decay: float) -> CellRecord:
    """Return a cell with a new forecast; it counts how often its side turned or lapsed, and how long it stood.

    A cell whose forecast has expired has none any more: its side lapsed.
    """
    after = cell._replace(forecast=forecast, side=forecast.side, side_ns=forecast.timestamp_ns)
    if not cell.side:
        return after
    stood = (forecast.timestamp_ns - cell.side_ns) / (forecast.horizon_s * SECOND_NS)
    turned = 1.0 if cell.forecast is None or cell.side != forecast.side else 0.0
    return after._replace(turns=decay * cell.turns + turned, horizons=decay * cell.horizons + min(stood, 1.0))


def _place_of(entry: Journaled) -> str:
    """Return what names a signal that has no name of its own: where it came from."""
    if not entry.topic:
        return f"{entry.kind}-{entry.offset}"
    return f"{entry.topic}-{entry.epoch}-{entry.partition}-{entry.source_offset}"


def _forecast(state: State, body: dict[str, Any], signal_id: str, side: int) -> Forecast:
    """Resolve a signal's claim: what it leaves open is estimated, and said so."""
    get = body.get
    params = state.params
    horizon_s = get("horizon_s", 3600)
    timestamp_ns = body["timestamp_ns"]
    market = state.markets.get((body["symbol"],))
    volatility, claimed = get("predicted_volatility"), get("expected_return")
    missing = [name for name in ("expected_return", "predicted_volatility") if get(name) is None]
    own = None if market is None or market.bars is None else bars.volatility(market.bars, horizon_s, params.market)
    stated = volatility
    if volatility is None:
        volatility = own or params.position_sizing.defaults.volatility
    elif own and market is not None and market.bars is not None and market.bars.closed >= params.market.warmup_bars:
        most = params.position_sizing.bayesian_kelly.max_volatility_ratio
        volatility = min(max(volatility, own / most), own * most)
    if claimed is None:
        claimed, trading, funding = params.position_sizing.defaults.expected_sharpe * volatility, 0.0, 0.0
    else:
        claimed, trading = abs(claimed), round_trip(params)
        funding = _funding(state, body["symbol"], side, horizon_s)
    valid_s = get("valid_for_s") or horizon_s * params.position_sizing.defaults.validity_horizons
    return Forecast(
        signal_id=signal_id,
        timestamp_ns=timestamp_ns,
        expires_ns=timestamp_ns + int(valid_s * SECOND_NS),
        side=side,
        confidence=body["confidence"],
        expected_return=claimed,
        volatility=volatility,
        costs=trading + funding,
        horizon_s=horizon_s,
        risk_score=body["risk_score"],
        sentiment_score=get("sentiment_score"),
        sentiment_confidence=get("sentiment_confidence"),
        sentiment_ns=get("sentiment_timestamp_ns") or timestamp_ns,
        estimated=",".join(missing),
        trading_costs=trading,
        claimed_volatility=0.0 if stated is None or stated == volatility else stated,
    )


def _count_clipped(
    state: State, offset: int, key: tuple[str, str, str], cell: CellRecord, forecast: Forecast, folded: FoldResult
) -> CellRecord:
    """Note each field of which less counts, or more, than was claimed; alert where that becomes a habit."""
    fields = []
    if forecast.claimed_volatility:
        fields.append("predicted_volatility")
    learned = state.posteriors.get(key)
    x = forecast.confidence * forecast.expected_return / forecast.volatility
    params = state.params.position_sizing.bayesian_kelly
    if calibration.bounded(x, None if learned is None else learned.posterior, params) < x:
        fields.append("expected_return")
    for name in fields:
        folded.note("clipped_claim", name)
    clipped = cell.clipped + 1 if fields else 0
    if clipped == CLIPPED_IN_A_ROW:
        subject = "/".join(key)
        alert(state, folded, offset, "clipped_claims", subject, severity="warning", result=", ".join(fields))
    return cell._replace(clipped=min(clipped, CLIPPED_IN_A_ROW + 1))


def _funding(state: State, symbol: str, side: int, horizon_s: float) -> float:
    """Return the funding that a position of this side pays over the horizon, negative where it receives."""
    rate = funding_8h(state, symbol)
    return 0.0 if rate is None else side * rate * horizon_s / 28_800.0


def _vote(state: State, portfolio: str, symbol: str, label: Any, timestamp_ns: int, folded: FoldResult) -> None:
    key = (portfolio, symbol)
    before = state.regimes.get(key)
    after, change = regime.step(before, label, timestamp_ns, state.params.position_sizing.regime_adjustment)
    if after != before:
        state.regimes.put(key, after)
    if change is not None:
        folded.note(f"regime_{change.kind}", f"{change.from_regime}>{change.to_regime}")
    if after.candidate is not None:
        share = regime.progress(after, state.params.position_sizing.regime_adjustment)
        folded.note("regime_candidate", after.candidate, share)
