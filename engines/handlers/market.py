"""Fold what portfolios share: steps into bars, readings into gauges, both into cascade latches.

Source: docs/pipeline.md, stage 0; docs/methods.md, section 5.
"""

from math import sqrt
from typing import Any

from engines.handlers import returns, silence
from engines.handlers.effects import CascadeReading, FoldResult, Journaled, alert
from engines.models import bars, cascade, collar
from engines.models.cascade import Readings
from engines.models.collar import Collar, Ohlc
from engines.numerics.exact import exp
from engines.parameters import CascadeLevels
from engines.pipeline import cache
from engines.pipeline.cell_sizing import is_stale
from engines.pipeline.decide import Trigger, room_of
from engines.state import capacity
from engines.state.holdings import hold
from engines.state.partition import MARKET_WIDE, State
from engines.state.records import Bars, Latch, Market
from schemas.vocabulary import RECOMMENDATIONS

SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS
EMPTY = Market(None, (None,) * 7, None, None, -1)
FUNDING = 0
"""Place of the funding rate among a market's gauges."""


def fold_step(state: State, entry: Journaled, folded: FoldResult) -> None:
    """Fold one step of one partition of `prices`: prices, bars, latches, and the caps that prices may have broken."""
    body = entry.body
    source = body["source_partition"]
    end_ns = (body["step"] + 1) * body["step_s"] * SECOND_NS
    steps = state.progress.steps if state.progress else {}
    if end_ns <= steps.get(str(source), 0):
        folded.note("duplicate", "step")
        return
    steps[str(source)] = end_ns
    for symbol, prices in body["symbols"].items():
        fold_price(state, entry, folded, symbol, prices, end_ns, source)
    returns.close(state, end_ns, entry.offset, folded)
    look_again(state, entry.offset, folded)


def fold_price(
    state: State, entry: Journaled, folded: FoldResult, symbol: str, prices: list[Any], end_ns: int, source: int
) -> None:
    """Fold one symbol's [open, high, low, close, volume in coins, ticks] of a step that ends at end_ns."""
    market = state.markets.get((symbol,)) or EMPTY
    if market is EMPTY and capacity.no_room_for_symbol(state, symbol) is not None:
        folded.note("refused_symbol", symbol)
        return
    if market.bars is not None and market.source_partition != source and end_ns - market.bars.last_ns < HOUR_NS:
        folded.note("refused_symbol", symbol)
        return
    candle = _believed(state, entry, folded, symbol, market, Ohlc(*prices[:4]), end_ns)
    if candle is None:
        return
    moved = bars.fold(market.bars, *candle, prices[4], end_ns, state.params.market)
    returns.rolled(state, symbol, market.bars, moved)
    leapt_ns = end_ns if _has_leapt(market, candle, state) else market.leapt_ns
    priced = Market(moved, market.gauges, market.long, market.short, source, leapt_ns=leapt_ns)
    state.oldest_price_ns = min(state.oldest_price_ns, end_ns)
    _store(state, symbol, priced, entry.offset, folded)
    for portfolio, price in list(state.watches.get(symbol, {}).items()):
        if candle.close >= price:
            watch_caps(state, entry.offset, portfolio, folded, symbol)
    if not is_stale(moved, _now(state), state.params):
        for portfolio in list(state.waiting.get(symbol, {})):
            cell = state.first_forecast(portfolio, symbol)
            if cell is not None:
                folded.call_for(portfolio, Trigger("price", symbol, mode="full", cell=cell))


def _has_leapt(market: Market, candle: Ohlc, state: State) -> bool:
    """Return whether an accepted price is so far from the last one that the symbol is on probation."""
    if market.bars is None:
        return False
    ratio, last = state.params.market.collar.doubt_ratio, market.bars.last_price
    return candle.close > last * ratio or candle.close * ratio < last


def watch_caps(state: State, offset: int, portfolio: str, folded: FoldResult, symbol: str = "positions") -> None:
    """Call for a cut where what is intended exceeds a cap by more than the tolerance; report a breach once.

    What is held counts for the report too, but calls for nothing: its target is within the cap already. A breach ends
    when everything is within its cap again.
    """
    intended, held = room_of(state, portfolio)
    least = 1.0 / (1.0 + cache.limits(state).tolerance)
    room = min(intended, held)
    book = state.book(portfolio)
    if room < least and not book.breached:
        alert(
            state,
            folded,
            offset,
            "risk_budget",
            portfolio,
            severity="warning",
            value=1.0 / room if room else None,
            threshold=1.0,
        )
        state.put_book(portfolio, book._replace(breached=True))
    elif book.breached and room >= 1.0:
        state.put_book(portfolio, book._replace(breached=False))
    if intended < least:
        folded.call_for(portfolio, Trigger("cap", symbol, mode="scale_down", cell=None, quiet=True))


def _believed(
    state: State, entry: Journaled, folded: FoldResult, symbol: str, market: Market, candle: Ohlc, end_ns: int
) -> Ohlc | None:
    """Return a step's candle within the collar, or None where its price is suspect: then the last one stays, and ages.

    The alert is raised once a suspicion, by the first partition alone.
    """
    known = market.bars
    if known is None:
        return candle
    before = Collar(known.last_price, known.last_ns, market.suspect)
    after, judged = collar.step(before, candle, end_ns, sqrt(known.variance or 0.0), state.params.market)
    if judged.candle is None:
        folded.note("suspect_price", symbol)
        if market.suspect is None and state.partition == 0:
            bound = known.last_price * exp(judged.reach if candle.close > known.last_price else -judged.reach)
            alert(
                state,
                folded,
                entry.offset,
                "suspect_price",
                symbol,
                severity="warning",
                value=candle.close,
                threshold=bound,
            )
        state.put_market(symbol, market._replace(suspect=after.suspect))
    elif judged.clipped:
        folded.note("clipped_price", symbol, judged.clipped)
    return judged.candle


def fold_readings(state: State, entry: Journaled, body: dict[str, Any], folded: FoldResult) -> None:
    """Fold cascade indicators: each field replaces the gauge of its name unless that is newer."""
    symbol = body.get("symbol") or MARKET_WIDE
    market = state.markets.get((symbol,)) or EMPTY
    broken = capacity.no_room_for_symbol(state, symbol)
    if broken is not None:
        if state.partition == 0:
            folded.refuse(entry, *broken)
        return
    at_ns = body["timestamp_ns"]
    gauges = tuple(
        (value, at_ns) if value is not None and (gauge is None or gauge[1] <= at_ns) else gauge
        for value, gauge in zip(_readings_of(body), market.gauges, strict=True)
    )
    _store(state, symbol, market._replace(gauges=gauges), entry.offset, folded)


def look_again(state: State, offset: int, folded: FoldResult) -> None:
    """Decay the latches that are up to now, and alert on prices and reports that are overdue.

    A level that is left calls for decisions.
    """
    silence.of_prices(state, offset, folded)
    silence.of_reports(state, offset, folded)
    for symbol in sorted(state.elevated):
        market = state.markets[symbol,]
        after = market._replace(
            long=_decayed(market.long, _now(state), state.params.risk_management.cascade_levels),
            short=_decayed(market.short, _now(state), state.params.risk_management.cascade_levels),
        )
        if _levels(after) != _levels(market):
            state.put_market(symbol, after)
            _call_for_cuts(state, symbol, market, after, offset, folded)


def readings(market: Market, now_ns: int, levels: CascadeLevels) -> Readings:
    """Return the gauges that are not too old, as the cascade detector takes them."""
    oldest_ns = _oldest_ns(now_ns, levels)
    funding, oi, volume, whale, netflow, liquidations, interest = (
        gauge[0] if gauge is not None and gauge[1] >= oldest_ns else None for gauge in market.gauges
    )
    ratio = liquidations / interest if liquidations is not None and interest else None
    return Readings(funding, oi, whale, netflow, ratio, volume)


def funding_8h(state: State, symbol: str) -> float | None:
    """Return the symbol's funding rate per 8 h, where a fresh one is known."""
    market = state.markets.get((symbol,))
    gauge = None if market is None else market.gauges[FUNDING]
    if gauge is None or gauge[1] < _oldest_ns(_now(state), state.params.risk_management.cascade_levels):
        return None
    return gauge[0]


def _oldest_ns(now_ns: int, levels: CascadeLevels) -> int:
    return now_ns - int(levels.max_reading_age_s * SECOND_NS)


def _now(state: State) -> int:
    return state.progress.now_ns if state.progress else 0


def _readings_of(body: dict[str, Any]) -> tuple[float | None, ...]:
    get = body.get
    funding = get("funding_rate")
    return (
        None if funding is None else funding * 8.0 / get("funding_interval_hours", 8),
        get("oi_change_pct"),
        get("volume_ratio"),
        get("onchain_whale_pressure"),
        get("exchange_netflow_zscore"),
        get("liquidation_volume_24h"),
        get("open_interest"),
    )


def _store(state: State, symbol: str, market: Market, offset: int, folded: FoldResult) -> None:
    """Store a symbol's market with its latches stepped; a changed level calls for decisions."""
    before = state.markets.get((symbol,)) or EMPTY
    known = readings(market, _now(state), state.params.risk_management.cascade_levels)
    after = market._replace(
        long=_stepped(state, symbol, market, 1, known, folded), short=_stepped(state, symbol, market, -1, known, folded)
    )
    state.put_market(symbol, after)
    if _levels(before) != _levels(after):
        _call_for_cuts(state, symbol, before, after, offset, folded)


def _stepped(state: State, symbol: str, market: Market, side: int, known: Readings, folded: FoldResult) -> Latch | None:
    risk = state.params.risk_management
    excursion, ratio = _of_bars(state, market.bars, side)
    parts = cascade.components(
        known,
        excursion,
        ratio if known.volume_ratio is None else known.volume_ratio,
        side,
        risk.cascade_thresholds,
        risk.cascade_levels,
    )
    raw = cascade.score(parts, risk.cascade_weights)
    latch = market.long if side > 0 else market.short
    if raw is None and latch is None:
        return None
    after = cascade.step(latch, raw, _now(state), risk.cascade_levels)
    folded.looks.append(CascadeReading(symbol, side, parts, after.score, after.level))
    return after


def _of_bars(state: State, known: Bars | None, side: int) -> tuple[float | None, float | None]:
    if known is None:
        return None, None
    return bars.excursion(known, side, state.params.market), bars.volume_ratio(known, state.params.market)


def _decayed(latch: Latch | None, now_ns: int, levels: CascadeLevels) -> Latch | None:
    return None if latch is None else cascade.step(latch, None, now_ns, levels)


def _levels(market: Market) -> tuple[int, int]:
    return (0 if market.long is None else market.long.level, 0 if market.short is None else market.short.level)


def _call_for_cuts(state: State, symbol: str, before: Market, after: Market, offset: int, folded: FoldResult) -> None:
    """Call for decisions of all who hold the side whose level changed; the first partition alone raises the alert."""
    for side, was, now in zip((1, -1), _levels(before), _levels(after), strict=True):
        if was == now:
            continue
        folded.note("cascade_level", RECOMMENDATIONS[now])
        for portfolio in _holders(state, symbol, side):
            folded.call_for(portfolio, Trigger("cascade", symbol, mode="scale_down", cell=None, quiet=True))
        latch = after.long if side > 0 else after.short
        if state.partition == 0 and latch is not None:
            _warn(state, folded, offset, f"{symbol}:{'long' if side > 0 else 'short'}", latch, now)


def _warn(state: State, folded: FoldResult, offset: int, subject: str, latch: Latch, level: int) -> None:
    levels = state.params.risk_management.cascade_levels
    thresholds = (levels.reduce_50, levels.reduce_75, levels.exit)
    alert(
        state,
        folded,
        offset,
        "cascade",
        subject,
        severity=("info", "warning", "warning", "critical")[level],
        value=latch.score,
        threshold=thresholds[level - 1] if level else levels.reduce_50,
        result=RECOMMENDATIONS[level],
    )


def _holders(state: State, symbol: str, side: int) -> list[str]:
    """Return the portfolios that hold the symbol on a side; market-wide means any symbol."""
    symbols = list(state.holders) if symbol == MARKET_WIDE else [symbol]
    held = {portfolio: None for each in symbols for portfolio in state.holders.get(each, {})}
    return sorted(portfolio for portfolio in held if _on_side(state, portfolio, symbol, side))


def _on_side(state: State, portfolio: str, symbol: str, side: int) -> bool:
    holdings = hold(state, portfolio)
    return any(
        (intended * side > 0 or held * side > 0) and symbol in {name, MARKET_WIDE}
        for (_, name), intended, held in zip(holdings.cells, holdings.intended, holdings.cents, strict=True)
    )
