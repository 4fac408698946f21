"""Sizing modes: how a decision gets its sizes before the caps.

- full: every live cell goes through stages 1 to 10.
- scale down: what was last published is cut by stages 7 and 8. Targets are intentions: what is held moves none of them.
- reuse: the sizes are those that the caps of an earlier decision had left, which a policy's answer is to nudge.

Source: docs/pipeline.md.
"""

from collections.abc import Sequence
from typing import NamedTuple

from engines.models import cascade, drawdown
from engines.pipeline import aggregation, cache, cell_sizing
from engines.pipeline.cell_sizing import STAGES, CellSize
from engines.pipeline.portfolio_sizing import Reduction
from engines.pipeline.wants import on_probation
from engines.pipeline.waterfall import Waterfall
from engines.state import overrides
from engines.state.holdings import Holdings
from engines.state.partition import MARKET_WIDE, State
from engines.state.records import Book, CellTarget
from schemas.vocabulary import Regime, TradingState

__all__ = ["Sized", "levels", "reuse", "scale_down", "size_in_full", "trading_states"]

Cells = Sequence[tuple[str, str]]
HALTED: TradingState = "HALTED"
ACTIVE: TradingState = "ACTIVE"
REDUCING: TradingState = "REDUCING"
SEVERITY: dict[TradingState, int] = {ACTIVE: 0, REDUCING: 1, HALTED: 2}


class Sized(NamedTuple):
    """A book before its caps."""

    waterfall: Waterfall
    sizes: list[CellSize | None]
    cuts: list[float]
    cap_factors: list[float]
    strategy_weights: dict[str, float]
    reduction: Reduction | None
    """Stage 10, where it ran."""


class Carried(NamedTuple):
    """One cell as it was last published, after the cuts that have come since."""

    cents: int
    cut: float
    cap_factor: float
    reason: str


def size_in_full(state: State, portfolio: str, book: Book, holdings: Holdings, states: list[TradingState]) -> Sized:
    """Stages 1-10 of every cell; cells without a fresh price are carried as they were published."""
    drawdown_factor = _drawdown_factor(state, book)
    sizes: list[CellSize | None] = []
    rows, cuts, factors, reasons = [], [], [], {}
    for index, (cell, trading) in enumerate(zip(holdings.cells, states, strict=True)):
        size = _cell(state, (portfolio, *cell), trading, book.value_usd, drawdown_factor)
        sizes.append(size)
        if size is None:
            reasons[index] = "no forecast"
            rows.append(cell_sizing.NOTHING)
            cuts.append(1.0)
            factors.append(0.0)
            continue
        if size.reason:
            reasons[index] = size.reason
        rows.append(size.cents)
        cuts.append(size.cut)
        factors.append(size.cap_factor)
    waterfall = Waterfall()
    columns = zip(*rows, strict=True) if rows else [()] * len(STAGES)
    for name, column in zip(STAGES, columns, strict=True):
        waterfall.add(name, column)
    waterfall.reasons[0] = reasons
    weights = aggregation.of_strategies(state, portfolio, holdings, sizes, states, waterfall)
    reduction = aggregation.of_symbols(state, book.value_usd, holdings.cells, sizes, factors, waterfall)
    sized = Sized(waterfall, sizes, cuts, factors, weights, reduction)
    if state.params.portfolio.stale_price == "hold":
        _carry_unpriced(state, drawdown_factor, holdings, sized)
    return sized


def scale_down(state: State, _portfolio: str, book: Book, holdings: Holdings, states: list[TradingState]) -> Sized:
    """Stages 7 and 8 on what was last published, at present prices."""
    drawdown_factor = _drawdown_factor(state, book)
    levels_now = levels(state, holdings.cells, holdings.intended, holdings.cents)
    rows = [
        _carried(size, target, level, drawdown_factor, halted=trading == HALTED)
        for size, target, level, trading in zip(holdings.intended, holdings.targets, levels_now, states, strict=True)
    ]
    cents = [row.cents for row in rows]
    waterfall = Waterfall()
    waterfall.add("held", holdings.intended)
    waterfall.add("cut", cents, {index: row.reason for index, row in enumerate(rows) if row.reason})
    return Sized(waterfall, [None] * len(rows), [row.cut for row in rows], [row.cap_factor for row in rows], {}, None)


def reuse(state: State, portfolio: str, book: Book, holdings: Holdings, states: list[TradingState]) -> Sized:
    """Stages 2-11 as the decision that is nudged had left them; a cell that it did not know stays as published."""
    record = state.questions.get((portfolio,))
    kept = {} if record is None else {(row.strategy_id, row.symbol): row for row in record.book}
    drawdown_factor = _drawdown_factor(state, book)
    levels_now = levels(state, holdings.cells, holdings.intended, holdings.cents)
    cents, cuts, factors = [], [], []
    for cell, intended, target, level, trading in zip(
        holdings.cells, holdings.intended, holdings.targets, levels_now, states, strict=True
    ):
        row = kept.get(cell)
        if row is not None:
            size, cut, factor = row.cents, row.cut, row.cap_factor
        elif target is not None:
            size, cut, factor = intended, target.cut, target.cap_factor
        else:
            size, cut, factor = intended, cascade.MULTIPLIER[level] * drawdown_factor, 1.0
        cents.append(0 if trading == HALTED else size)
        cuts.append(cut)
        factors.append(factor)
    waterfall = Waterfall()
    waterfall.add("kept", cents)
    return Sized(waterfall, [None] * len(cents), cuts, factors, {}, None)


def _carry_unpriced(state: State, drawdown_factor: float, holdings: Holdings, sized: Sized) -> None:
    """Add a stage in which cells without a fresh price keep what was published, less the cuts since then.

    A price that is not known is no reason to sell, and none to buy.
    """
    waiting = [
        index
        for index, size in enumerate(sized.sizes)
        if size is not None and size.reason in cell_sizing.WANTING_A_PRICE
    ]
    if not waiting:
        return
    levels_now = levels(state, holdings.cells, holdings.intended, holdings.cents)
    cents, reasons = list(sized.waterfall.last), {}
    for index in waiting:
        target = holdings.targets[index]
        if target is None:
            continue
        row = _carried(holdings.intended[index], target, levels_now[index], drawdown_factor, halted=False)
        cents[index], sized.cuts[index], sized.cap_factors[index] = row.cents, row.cut, row.cap_factor
        reasons[index] = "held without a fresh price" + (f", {row.reason}" if row.reason else "")
    sized.waterfall.add("unpriced", cents, reasons)


def _carried(intended: int, target: CellTarget | None, level: int, drawdown_factor: float, *, halted: bool) -> Carried:
    """Return a cell as published, cut by what cascade and drawdown take now beyond what they took then."""
    now = cascade.MULTIPLIER[level] * drawdown_factor
    was = now if target is None else target.cut
    ratio = now / was if now < was else 1.0
    factor = (1.0 if target is None else target.cap_factor) * ratio
    if halted:
        return Carried(0, min(was, now), factor, "halted" if intended else "")
    return Carried(
        int(intended * ratio), min(was, now), factor, f"cut from {was:.4g} to {now:.4g}" if ratio < 1.0 else ""
    )


def _drawdown_factor(state: State, book: Book) -> float:
    """Return the drawdown multiplier."""
    return drawdown.multiplier(book.peak_usd, book.value_usd, state.params.risk_management.max_drawdown_pct)


def trading_states(state: State, portfolio: str, cells: list[tuple[str, str]]) -> list[TradingState]:
    """Return each cell's trading state: the most severe of all, its portfolio, its strategy and its symbol.

    Where the price or the equity has leapt, a symbol is on probation: it is only reduced.
    """
    ordered = state.ordered(MARKET_WIDE)
    leapt = [
        symbol for symbol in dict.fromkeys(symbol for _, symbol in cells) if on_probation(state, portfolio, symbol)
    ]
    if not ordered:
        return [REDUCING if symbol in leapt else ACTIVE for _, symbol in cells]

    def state_of(scope: str) -> TradingState:
        return overrides.word_of(ordered, scope) or ACTIVE  # type: ignore[return-value]

    wide = [state_of("all"), state_of(f"portfolio:{portfolio}")]
    return [
        max(
            *wide,
            state_of(f"strategy:{strategy}"),
            state_of(f"symbol:{symbol}"),
            REDUCING if symbol in leapt else ACTIVE,
            key=SEVERITY.__getitem__,
        )
        for strategy, symbol in cells
    ]


def levels(state: State, cells: Cells, cents: Sequence[int], held: Sequence[int]) -> list[int]:
    """Return the cascade level of each cell's side, of what it holds where its target is 0."""
    if not state.elevated:
        return [0] * len(cells)
    markets = state.markets
    whole = markets.get((MARKET_WIDE,))
    return [
        cell_sizing.level_of(markets.get((symbol,)), whole, 1 if (size or now) >= 0 else -1)
        for (_, symbol), size, now in zip(cells, cents, held, strict=True)
    ]


def _cell(
    state: State, key: tuple[str, str, str], trading: TradingState, value_usd: float, drawdown_factor: float
) -> CellSize | None:
    """Stages 1-8 of one cell, None where it has no forecast."""
    known = state.predictions.get(key)
    if known is None or known.forecast is None:
        return None
    forecast, markets, now_ns = known.forecast, state.markets, state.now_ns
    market = markets.get((key[2],))
    level = cell_sizing.level_of(market, markets.get((MARKET_WIDE,)), forecast.side)
    reason = cell_sizing.why_not(forecast, market, trading == HALTED, now_ns, state.params)
    if reason:
        return cell_sizing.nothing(reason, level, drawdown_factor)
    memo = cache.of(state)
    bet = cache.bet(state, key, forecast)
    regime = state.regimes.get((key[0], key[2]))
    confirmed: Regime = "ranging" if regime is None else regime.confirmed
    around = (bet, level, drawdown_factor, confirmed, value_usd)
    last = memo.sizes.get(key)
    if last is not None and last[0] == around and forecast.sentiment_score is None:
        return last[1]
    size = cell_sizing.size(bet, level, drawdown_factor, confirmed, value_usd, now_ns, state.params)
    memo.sizes[key] = (around, size)
    return size
