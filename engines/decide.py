"""Stages 1 to 14: from a portfolio's state and a trigger to its targets.

A full decision sizes every live cell afresh. A decision *by ratio* (no solver, no claims) only carries new cuts,
caps and trading states onto what is held. Both end in the caps, the limits and the band, in this order; nothing
runs after them.

Source: the pipeline specification.
"""

from typing import NamedTuple

from engines import band, caps, cascade, drawdown, sizing
from engines.caps import Limits
from engines.headroom import headroom
from engines.holdings import Holdings, hold
from engines.records import Book, Market, Target
from engines.sizing import STAGES, CellSize, Surroundings
from engines.state import MARKET_WIDE, State
from schemas.words import TradingState

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


class Stage(NamedTuple):
    """The book after one stage."""

    name: str
    cents: list[int]
    """Signed size of each cell."""
    reasons: dict[int, str]
    """Why, by index of the cell, where there is something to say."""


class Decision(NamedTuple):
    """Targets of one portfolio, and how they came about."""

    portfolio_id: str
    trigger: Trigger
    book: Book
    holdings: Holdings
    stages: list[Stage]
    sizes: list[CellSize | None]
    """Stages 1-8 of each cell; None where the decision was by ratio or the cell has no forecast."""
    targets: list[Target]
    quantities: dict[str, float]
    """Signed target quantity by symbol, in coins."""
    bound: list[tuple[str, str]]
    """(level, name) of each cap that bound in stage 11."""
    kept: list[str]
    """Symbols that the band left as they were held."""
    headroom: float
    """Prices may rise by this factor, at least 1, before any cap can break."""
    limits: Limits
    """Those of stages 11 and 13 that were in force."""

    @property
    def cents(self) -> list[int]:
        """Final signed size of each cell."""
        return self.stages[-1].cents


class _Sized(NamedTuple):
    stages: list[Stage]
    sizes: list[CellSize | None]
    cuts: list[float]
    cap_factors: list[float]
    forced: list[bool]


def stronger(one: Trigger | None, other: Trigger) -> Trigger:
    """Return the trigger that names a decision called for by both; it is full if either is.

    Of two signals the one of the first cell by name: the order within an entry does not matter.
    """
    if one is None:
        return other
    named = min(one, other, key=lambda trigger: (RANKS.index(trigger.kind), trigger.cell or ()))
    return named._replace(full=one.full or other.full)


def decide(state: State, portfolio: str, trigger: Trigger) -> Decision:
    """Return the portfolio's targets; the state is only read."""
    params = state.params
    book = state.book(portfolio)
    holdings = hold(state, portfolio)
    states = trading_states(state, portfolio, holdings.cells)
    sized = (
        _afresh(state, portfolio, book, holdings, states) if trigger.full else _by_ratio(state, book, holdings, states)
    )
    before = sized.stages[-1].cents

    limits = state.limits
    capped = caps.caps(holdings.cells, before, sized.cap_factors, book.value_usd, limits)
    limited = caps.limits(holdings.cells, capped.cents, holdings.cents, states, limits)
    forced = [
        (was or abs(now) < abs(cents)) and abs(final) < abs(held)
        for was, cents, now, final, held in zip(
            sized.forced, before, capped.cents, limited.cents, holdings.cents, strict=True
        )
    ]
    levels = [
        _level(state, symbol, cents or held)
        for (_, symbol), cents, held in zip(holdings.cells, limited.cents, holdings.cents, strict=True)
    ]
    settled = band.settle(
        holdings.cells,
        limited.cents,
        holdings.cents,
        forced,
        levels,
        states,
        sized.cap_factors,
        book.value_usd,
        limits,
        params.position_sizing.band_ratio,
    )
    stages = [
        *sized.stages,
        Stage("caps", capped.cents, _bound_reasons(holdings.cells, capped.bound)),
        Stage("limits", limited.cents, limited.reasons),
        Stage("band", settled.cents, {}),
    ]
    quantities = _quantities(state, holdings, settled.cents, settled.kept)
    targets = [
        Target(cents, quantities[symbol], cut, factor)
        for (_, symbol), cents, cut, factor in zip(
            holdings.cells, settled.cents, sized.cuts, sized.cap_factors, strict=True
        )
    ]
    room = headroom(holdings.cells, settled.cents, sized.cap_factors, book.value_usd, limits)
    return Decision(
        portfolio,
        trigger,
        book,
        holdings,
        stages,
        sized.sizes,
        targets,
        quantities,
        capped.bound,
        settled.kept,
        room,
        limits,
    )


def breaks_a_cap(state: State, portfolio: str) -> bool:
    """Return whether what the portfolio holds, at present prices, breaks a cap of stage 11 or the maximum of 13."""
    holdings = hold(state, portfolio)
    factors = [0.0 if target is None else target.cap_factor for target in holdings.targets]
    value_usd = state.book(portfolio).value_usd
    return headroom(holdings.cells, holdings.cents, factors, value_usd, state.limits) < 1.0


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
    tables = state.tables
    whole = tables["markets"].get((MARKET_WIDE,))
    now_ns = state.progress.now_ns if state.progress else 0
    sizes: list[CellSize | None] = []
    for (strategy, symbol), trading in zip(holdings.cells, states, strict=True):
        key = (portfolio, strategy, symbol)
        cell = tables["predictions"].get(key)
        if cell is None or cell.forecast is None:
            sizes.append(None)
            continue
        around = Surroundings(
            now_ns,
            book,
            tables["markets"].get((symbol,)),
            whole,
            tables["kelly-posteriors"].get(key),
            tables["conformal-scores"].get(key),
            tables["regimes"].get((portfolio, symbol)),
            trading == HALTED,
        )
        sizes.append(sizing.size(cell.forecast, around, state.params))
    rows = [sizing.NOTHING if size is None else size.cents for size in sizes]
    columns = zip(*rows, strict=True) if rows else [()] * len(STAGES)
    reasons = {
        i: "no forecast" if size is None else size.reason for i, size in enumerate(sizes) if size is None or size.reason
    }
    stages = [Stage(name, list(column), {}) for name, column in zip(STAGES, columns, strict=True)]
    stages[0] = stages[0]._replace(reasons=reasons)
    return _Sized(
        stages,
        sizes,
        [1.0 if size is None else size.cut for size in sizes],
        [0.0 if size is None else size.cap_factor for size in sizes],
        [row[-1] != row[4] or trading == HALTED for row, trading in zip(rows, states, strict=True)],
    )


def _by_ratio(state: State, book: Book, holdings: Holdings, states: list[TradingState]) -> _Sized:
    fall = drawdown.multiplier(book.peak_usd, book.value_usd, state.params.risk_management.max_drawdown_pct)
    cents, cuts, factors, reasons = [], [], [], {}
    for index, ((_, symbol), held, target, trading) in enumerate(
        zip(holdings.cells, holdings.cents, holdings.targets, states, strict=True)
    ):
        now = cascade.MULTIPLIER[_level(state, symbol, held)] * fall
        was = now if target is None else target.cut
        ratio = now / was if now < was else 1.0
        cents.append(0 if trading == HALTED else sizing.scaled(held, ratio))
        cuts.append(min(was, now))
        factors.append((1.0 if target is None else target.cap_factor) * ratio)
        if trading == HALTED and held:
            reasons[index] = "halted"
        elif ratio < 1.0:
            reasons[index] = f"cut from {was:.4g} to {now:.4g}"
    forced = [now != held for now, held in zip(cents, holdings.cents, strict=True)]
    stages = [Stage("held", holdings.cents, {}), Stage("cut", cents, reasons)]
    return _Sized(stages, [None] * len(cents), cuts, factors, forced)


def _level(state: State, symbol: str, cents: int) -> int:
    markets = state.tables["markets"]
    side = 1 if cents >= 0 else -1
    return sizing.level_of(markets.get((symbol,)), markets.get((MARKET_WIDE,)), side)


def _bound_reasons(cells: list[tuple[str, str]], bound: list[tuple[str, str]]) -> dict[int, str]:
    """Say at each cell which caps bound it."""
    reasons: dict[int, str] = {}
    for level, name in bound:
        for index, (strategy, symbol) in enumerate(cells):
            names = {"cell": f"{strategy}/{symbol}", "symbol": symbol, "strategy": strategy, "portfolio": name}
            if names[level] == name:
                reasons[index] = f"{reasons[index]}, {level} cap" if index in reasons else f"{level} cap"
    return reasons


def _quantities(state: State, holdings: Holdings, cents: list[int], kept: list[str]) -> dict[str, float]:
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
        market: Market | None = markets.get((symbol,))
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
