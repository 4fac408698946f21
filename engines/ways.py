"""Ways in which a decision comes by its sizes before its caps: afresh, by ratio, or as kept.

Afresh, every live cell goes through stages 1 to 10. By ratio, what is held is cut by stages 7 and 8. As kept, the sizes
are those that a decision's caps had left, which a policy's answer is to nudge.

Source: the pipeline specification, stages and triggers.
"""

from collections.abc import Sequence
from typing import NamedTuple

from engines import aggregation, cascade, drawdown, sizing
from engines.holdings import Holdings
from engines.portfolio import Reduction
from engines.records import Book, Questions
from engines.sizing import STAGES, CellSize
from engines.state import MARKET_WIDE, State
from engines.waterfall import Waterfall
from schemas.words import Regime, TradingState

__all__ = ["Sized", "afresh", "as_kept", "by_ratio", "levels", "promised", "trading_states"]

Cells = Sequence[tuple[str, str]]
HALTED: TradingState = "HALTED"
ACTIVE: TradingState = "ACTIVE"
SEVERITY: dict[TradingState, int] = {ACTIVE: 0, "REDUCING": 1, HALTED: 2}


class Sized(NamedTuple):
    """A book before its caps."""

    waterfall: Waterfall
    sizes: list[CellSize | None]
    cuts: list[float]
    cap_factors: list[float]
    forced: list[bool]
    """Whether a cell was made smaller by a cut or a trading state."""
    strategy_weights: dict[str, float]
    reduction: Reduction | None
    """Stage 10, where it ran."""


def afresh(state: State, portfolio: str, book: Book, holdings: Holdings, states: list[TradingState]) -> Sized:
    """Stages 1-8 of every cell."""
    fall = drawdown.multiplier(book.peak_usd, book.value_usd, state.params.risk_management.max_drawdown_pct)
    sizes: list[CellSize | None] = []
    rows, cuts, factors, forced, reasons = [], [], [], [], {}
    for index, (cell, trading) in enumerate(zip(holdings.cells, states, strict=True)):
        size = _cell(state, (portfolio, *cell), trading, book.value_usd, fall)
        sizes.append(size)
        if size is None:
            reasons[index] = "no forecast"
            rows.append(sizing.NOTHING)
            cuts.append(1.0)
            factors.append(0.0)
            forced.append(trading == HALTED)
            continue
        if size.reason:
            reasons[index] = size.reason
        cents = size.cents
        rows.append(cents)
        cuts.append(size.cut)
        factors.append(size.cap_factor)
        forced.append(cents[-1] != cents[4] or trading == HALTED)
    waterfall = Waterfall()
    columns = zip(*rows, strict=True) if rows else [()] * len(STAGES)
    for name, column in zip(STAGES, columns, strict=True):
        waterfall.add(name, column)
    waterfall.reasons[0] = reasons
    weights = aggregation.of_strategies(state, portfolio, holdings.cells, sizes, waterfall)
    reduction = aggregation.of_symbols(state, book.value_usd, holdings.cells, sizes, factors, waterfall)
    return Sized(waterfall, sizes, cuts, factors, forced, weights, reduction)


def by_ratio(state: State, _portfolio: str, book: Book, holdings: Holdings, states: list[TradingState]) -> Sized:
    """Stages 7 and 8 on what is held."""
    fall = drawdown.multiplier(book.peak_usd, book.value_usd, state.params.risk_management.max_drawdown_pct)
    alarms = levels(state, holdings.cells, holdings.cents, holdings.cents)
    told = promised(book, holdings)
    cents, cuts, factors, reasons = [], [], [], {}
    for index, (held, target, level, trading) in enumerate(zip(told, holdings.targets, alarms, states, strict=True)):
        now = cascade.MULTIPLIER[level] * fall
        was = now if target is None else target.cut
        ratio = now / was if now < was else 1.0
        cents.append(0 if trading == HALTED else int(held * ratio))
        cuts.append(min(was, now))
        factors.append((1.0 if target is None else target.cap_factor) * ratio)
        if trading == HALTED and held:
            reasons[index] = "halted"
        elif ratio < 1.0:
            reasons[index] = f"cut from {was:.4g} to {now:.4g}"
        elif held != holdings.cents[index]:
            reasons[index] = "reduction not carried out yet"
    waterfall = Waterfall()
    waterfall.add("held", holdings.cents)
    waterfall.add("cut", cents, reasons)
    forced = [now != held for now, held in zip(cents, holdings.cents, strict=True)]
    return Sized(waterfall, [None] * len(cents), cuts, factors, forced, {}, None)


def as_kept(state: State, portfolio: str, book: Book, holdings: Holdings, states: list[TradingState]) -> Sized:
    """Stages 2-11 as the decision that is nudged had left them; a cell that it did not know stays as it is held."""
    record: Questions | None = state.tables["questions"].get((portfolio,))
    kept = {} if record is None else {(row.strategy_id, row.symbol): row for row in record.book}
    fall = drawdown.multiplier(book.peak_usd, book.value_usd, state.params.risk_management.max_drawdown_pct)
    alarms = levels(state, holdings.cells, holdings.cents, holdings.cents)
    cents, cuts, factors, forced = [], [], [], []
    for cell, held, target, level, trading in zip(
        holdings.cells, holdings.cents, holdings.targets, alarms, states, strict=True
    ):
        row = kept.get(cell)
        if row is not None:
            size, cut, factor, down = row.cents, row.cut, row.cap_factor, row.forced
        elif target is not None:
            size, cut, factor, down = held, target.cut, target.cap_factor, False
        else:
            size, cut, factor, down = held, cascade.MULTIPLIER[level] * fall, 1.0, False
        cents.append(0 if trading == HALTED else size)
        cuts.append(cut)
        factors.append(factor)
        forced.append(down or trading == HALTED)
    waterfall = Waterfall()
    waterfall.add("kept", cents)
    return Sized(waterfall, [None] * len(cents), cuts, factors, forced, {}, None)


def trading_states(state: State, portfolio: str, cells: list[tuple[str, str]]) -> list[TradingState]:
    """Return each cell's trading state: the most severe of all, its portfolio, its strategy and its symbol."""
    record = state.tables["states"].get((MARKET_WIDE,))
    if record is None or not record.scopes:
        return [ACTIVE] * len(cells)
    scopes = dict(record.scopes)
    wide = [scopes.get("all", ACTIVE), scopes.get(f"portfolio:{portfolio}", ACTIVE)]
    return [
        max(
            *wide,
            scopes.get(f"strategy:{strategy}", ACTIVE),
            scopes.get(f"symbol:{symbol}", ACTIVE),
            key=SEVERITY.__getitem__,
        )
        for strategy, symbol in cells
    ]


def levels(state: State, cells: Cells, cents: Sequence[int], held: Sequence[int]) -> list[int]:
    """Return the cascade level of each cell's side, of what it holds where its target is 0."""
    if not state.elevated:
        return [0] * len(cells)
    markets = state.tables["markets"]
    whole = markets.get((MARKET_WIDE,))
    return [
        sizing.level_of(markets.get((symbol,)), whole, 1 if (size or now) >= 0 else -1)
        for (_, symbol), size, now in zip(cells, cents, held, strict=True)
    ]


def promised(book: Book, holdings: Holdings) -> list[int]:
    """Return what is held less the reductions that were published, and that known positions do not show yet."""
    if not book.reductions or holdings.basis == "targets":
        return holdings.cents
    promised = dict(book.reductions)
    after = []
    for (_, symbol), held in zip(holdings.cells, holdings.cents, strict=True):
        quantity = holdings.quantities.get(symbol, 0.0)
        share = promised[symbol] / quantity if symbol in promised and quantity else 1.0
        after.append(held if share >= 1.0 else int(held * max(0.0, share)))
    return after


def _cell(
    state: State, key: tuple[str, str, str], trading: TradingState, value_usd: float, fall: float
) -> CellSize | None:
    """Stages 1-8 of one cell, None where it has no forecast."""
    tables = state.tables
    known = tables["predictions"].get(key)
    if known is None or known.forecast is None:
        return None
    forecast, markets, now_ns = known.forecast, tables["markets"], state.now_ns
    market = markets.get((key[2],))
    level = sizing.level_of(market, markets.get((MARKET_WIDE,)), forecast.side)
    reason = sizing.why_not(forecast, market, trading == HALTED, now_ns, state.params)
    if reason:
        return sizing.nothing(reason, level, fall)
    learned, scores = tables["kelly-posteriors"].get(key), tables["conformal-scores"].get(key)
    bet = state.bets.get(key)
    if bet is None or bet.forecast is not forecast or bet.learned is not learned or bet.scores is not scores:
        bet = state.bets[key] = sizing.bet(forecast, learned, scores, state.params)
    regime = tables["regimes"].get((key[0], key[2]))
    confirmed: Regime = "ranging" if regime is None else regime.confirmed
    around = (bet, level, fall, confirmed, value_usd)
    last = state.sizes.get(key)
    if last is not None and last[0] == around and forecast.sentiment_score is None:
        return last[1]
    size = sizing.size(bet, level, fall, confirmed, value_usd, now_ns, state.params)
    state.sizes[key] = (around, size)
    return size
