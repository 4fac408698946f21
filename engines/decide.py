"""Stages 1 to 14: from a portfolio's state and a trigger to its targets.

A full decision sizes every live cell afresh. A decision *by ratio* (no solver, no claims) only carries new cuts,
caps and trading states onto what is held. Both end in the caps, the limits and the band, in this order; nothing
runs after them.

Source: the pipeline specification.
"""

from collections.abc import Sequence
from typing import NamedTuple

from engines import aggregation, band, caps, cascade, drawdown, sizing
from engines.caps import Limits
from engines.headroom import headroom
from engines.holdings import Holdings, hold
from engines.portfolio import Reduction
from engines.records import Book, Target
from engines.sizing import STAGES, CellSize
from engines.state import MARKET_WIDE, State
from engines.waterfall import Waterfall
from schemas.words import Regime, TradingState

Cells = Sequence[tuple[str, str]]

RANKS = ("signal", "expiry", "resume", "control", "value", "settings", "cascade", "cap")
HALTED: TradingState = "HALTED"
ACTIVE: TradingState = "ACTIVE"
SEVERITY: dict[TradingState, int] = {ACTIVE: 0, "REDUCING": 1, HALTED: 2}


class Trigger(NamedTuple):
    """What called for a decision."""

    kind: str
    """One of `RANKS`."""
    id: str
    full: bool
    """Whether every live cell is sized afresh, or what is held is cut by ratio."""
    cell: tuple[str, str] | None
    """(strategy, symbol) whose waterfall is shown, where there is one."""


class Decision(NamedTuple):
    """Targets of one portfolio, and how they came about."""

    portfolio_id: str
    trigger: Trigger
    book: Book
    holdings: Holdings
    waterfall: Waterfall
    sizes: list[CellSize | None]
    """Stages 1-8 of each cell; None where the decision was by ratio or the cell has no forecast."""
    targets: list[Target]
    quantities: dict[str, float]
    """Signed target quantity by symbol, in coins."""
    bound: list[tuple[str, str]]
    """(level, name) of each cap that bound in stages 10 and 11."""
    kept: list[str]
    """Symbols that the band left as they were held."""
    headroom: float
    """Prices may rise by this factor, at least 1, before any cap can break."""
    limits: Limits
    """Those of stages 11 and 13 that were in force."""
    strategy_weights: dict[str, float]
    """h of the live strategies in stage 9; empty where the decision was by ratio."""
    penalties: dict[str, float]
    """What stage 10 took of each symbol, as a share; empty where the decision was by ratio."""

    @property
    def cents(self) -> Sequence[int]:
        """Final signed size of each cell."""
        return self.waterfall.last


class _Sized(NamedTuple):
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


def stronger(one: Trigger | None, other: Trigger) -> Trigger:
    """Return the trigger that names a decision called for by both; it is full if either is.

    Of two signals the one of the first cell by name: the order within an entry does not matter.
    """
    if one is None:
        return other
    named = min(one, other, key=lambda trigger: (RANKS.index(trigger.kind), trigger.cell or ()))
    return named._replace(full=one.full or other.full)


def decide(state: State, portfolio: str, trigger: Trigger) -> Decision:
    """Return the portfolio's targets; of the state nothing changes but what it keeps of stages 2 and 3."""
    book = state.book(portfolio)
    holdings = hold(state, portfolio)
    cells, held = holdings.cells, holdings.cents
    states = trading_states(state, portfolio, cells)
    size_all = _afresh if trigger.full else _by_ratio
    waterfall, sizes, cuts, factors, forced, weights, reduction = size_all(state, portfolio, book, holdings, states)

    limits = state.limits
    wanted = waterfall.last
    capped = caps.caps(cells, wanted, factors, book.value_usd, limits)
    waterfall.add("caps", capped.cents, _bound_reasons(cells, capped.bound))
    limited = caps.limits(cells, capped.cents, held, states, limits)
    waterfall.add("limits", limited.cents, limited.reasons)
    settled = band.settle(
        cells,
        limited.cents,
        held,
        _forced(forced, wanted, capped.cents, limited.cents, held),
        _levels(state, cells, limited.cents, held),
        states,
        factors,
        book.value_usd,
        limits,
        state.params.position_sizing.band_ratio,
    )
    waterfall.add("band", settled.cents)
    quantities = _quantities(state, holdings, settled.cents, settled.kept)
    return Decision(
        portfolio,
        trigger,
        book,
        holdings,
        waterfall,
        sizes,
        [
            Target(cents, quantities[cell[1]], cut, factor)
            for cell, cents, cut, factor in zip(cells, settled.cents, cuts, factors, strict=True)
        ],
        quantities,
        capped.bound if reduction is None else [*reduction.bound, *capped.bound],
        settled.kept,
        headroom(cells, settled.cents, factors, book.value_usd, limits),
        limits,
        weights,
        {} if reduction is None else reduction.penalties,
    )


def breaks_a_cap(state: State, portfolio: str) -> bool:
    """Return whether what the portfolio holds, at present prices, breaks a cap of stage 11 or the maximum of 13."""
    return room_of(state, hold(state, portfolio), state.book(portfolio)) < 1.0


def room_of(state: State, holdings: Holdings, book: Book) -> float:
    """Return the smallest cap over size of what is to be held, with the factors that a decision by ratio takes.

    Below 1 a cap is broken, and that decision cuts.
    """
    factors = [1.0 if target is None else target.cap_factor for target in holdings.targets]
    return headroom(holdings.cells, _promised(book, holdings), factors, book.value_usd, state.limits)


def _promised(book: Book, holdings: Holdings) -> list[int]:
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


def _afresh(state: State, portfolio: str, book: Book, holdings: Holdings, states: list[TradingState]) -> _Sized:
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
    return _Sized(waterfall, sizes, cuts, factors, forced, weights, reduction)


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


def _by_ratio(state: State, _portfolio: str, book: Book, holdings: Holdings, states: list[TradingState]) -> _Sized:
    """Stages 7 and 8 on what is held."""
    fall = drawdown.multiplier(book.peak_usd, book.value_usd, state.params.risk_management.max_drawdown_pct)
    levels = _levels(state, holdings.cells, holdings.cents, holdings.cents)
    promised = _promised(book, holdings)
    cents, cuts, factors, reasons = [], [], [], {}
    for index, (held, target, level, trading) in enumerate(
        zip(promised, holdings.targets, levels, states, strict=True)
    ):
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
    return _Sized(waterfall, [None] * len(cents), cuts, factors, forced, {}, None)


def _levels(state: State, cells: Cells, cents: Sequence[int], held: Sequence[int]) -> list[int]:
    """Return the cascade level of each cell's side, of what it holds where its target is 0."""
    if not state.elevated:
        return [0] * len(cells)
    markets = state.tables["markets"]
    whole = markets.get((MARKET_WIDE,))
    return [
        sizing.level_of(markets.get((symbol,)), whole, 1 if (size or now) >= 0 else -1)
        for (_, symbol), size, now in zip(cells, cents, held, strict=True)
    ]


def _forced(
    before: Sequence[bool], wanted: Sequence[int], capped: Sequence[int], limited: Sequence[int], held: Sequence[int]
) -> list[bool]:
    """Return whether each cell is held down: by a cut, a trading state or a cap, and below what it holds."""
    return [
        (was or abs(cap) < abs(want)) and abs(limit) < abs(now)
        for was, want, cap, limit, now in zip(before, wanted, capped, limited, held, strict=True)
    ]


def _bound_reasons(cells: Cells, bound: list[tuple[str, str]]) -> dict[int, str]:
    """Say at each cell which caps bound it."""
    reasons: dict[int, str] = {}
    for level, name in bound:
        for index, (strategy, symbol) in enumerate(cells):
            names = {"cell": f"{strategy}/{symbol}", "symbol": symbol, "strategy": strategy, "portfolio": name}
            if names[level] == name:
                reasons[index] = f"{reasons[index]}, {level} cap" if index in reasons else f"{level} cap"
    return reasons


def _quantities(state: State, holdings: Holdings, cents: Sequence[int], kept: list[str]) -> dict[str, float]:
    """Return each symbol's signed quantity: its target toward zero to the lot, or what is held where nothing changes.

    A net below the minimum is published as nothing. What is held is truncated to the cent: brought back to lots it
    would lose some at every decision.
    """
    minimum = state.limits.minimum_cents
    nets: dict[str, int] = {}
    changed: dict[str, None] = {}
    for (_, symbol), size, held in zip(holdings.cells, cents, holdings.cents, strict=True):
        nets[symbol] = nets.get(symbol, 0) + size
        if size != held:
            changed[symbol] = None
    markets, lots = state.tables["markets"], state.params.position_sizing.lots
    quantities = {}
    for symbol, net in nets.items():
        if symbol in kept:
            quantities[symbol] = holdings.quantities.get(symbol, 0.0)
            continue
        market = markets.get((symbol,))
        if abs(net) < minimum or not net or market is None or market.bars is None:
            quantities[symbol] = 0.0
        elif symbol not in changed:
            quantities[symbol] = holdings.quantities.get(symbol, 0.0)
        else:
            quantities[symbol] = in_lots(net / (100.0 * market.bars.last_price), lots.get(symbol, DEFAULT_LOT))
    return quantities


DEFAULT_LOT = 1e-8


def in_lots(quantity: float, lot: float) -> float:
    """Return a quantity truncated toward zero to whole lots, as the float nearest to its decimal."""
    count = int(quantity / lot)
    per_coin = 1.0 / lot
    whole = round(per_coin)
    if whole >= 1 and abs(per_coin - whole) <= whole * 1e-12:
        return count / whole
    return count * lot
