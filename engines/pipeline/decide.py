"""Stages 1 to 14: from a portfolio's state and a trigger to its targets.

A full decision sizes every live cell from its forecast. One that scales down (no solver, no claims) only applies new
cuts, caps and trading states to what was last published; one that reuses nudges what the caps had left
(`engines.pipeline.sizing_modes`). All end in the caps, the policy's nudge, the limits and the band, in this order; what
runs after them can only shrink.

Targets are intentions. What is held enters a full decision through the band, REDUCING and the exits, and a decision
that scales down through one bound alone: a cut never asks for more than a settled report of positions says is held.

Source: docs/pipeline.md.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from engines.pipeline import cache, caps, lots, no_trade_band
from engines.pipeline.cap_headroom import headroom
from engines.pipeline.caps import Limits
from engines.pipeline.cell_sizing import CellSize
from engines.pipeline.sizing_modes import Sized, levels, reuse, scale_down, size_in_full, trading_states
from engines.pipeline.wants import Want, wants
from engines.pipeline.waterfall import Waterfall
from engines.state import policy
from engines.state.holdings import UNASSIGNED, Holdings, hold
from engines.state.partition import State
from engines.state.records import Book, CellTarget
from engines.state.units import lot_of, unit_now
from schemas.vocabulary import TradingState

Cells = Sequence[tuple[str, str]]
SizingMode = Literal["full", "scale_down", "reuse"]

MODES: dict[SizingMode, Callable[[State, str, Book, Holdings, list[TradingState]], Sized]] = {
    "full": size_in_full,
    "scale_down": scale_down,
    "reuse": reuse,
}
"""How a decision gets its sizes; of two that are called for, the first of these."""
RANKS = ("signal", "expiry", "resume", "price", "control", "value", "settings", "cascade", "cap", "advice", "deadline")


class Trigger(NamedTuple):
    """What called for a decision."""

    kind: str
    """One of `RANKS`."""
    id: str
    mode: SizingMode
    """How the sizes before the caps come about."""
    cell: tuple[str, str] | None
    """(strategy, symbol) whose waterfall is shown, where there is one."""
    quiet: bool = False
    """Whether a decision that changes nothing is not published: nobody has asked for it."""

    @property
    def full(self) -> bool:
        """Whether every live cell is sized from its forecast."""
        return self.mode == "full"


class Decision(NamedTuple):
    """Targets of one portfolio, and how they came about."""

    portfolio_id: str
    trigger: Trigger
    book: Book
    holdings: Holdings
    waterfall: Waterfall
    sizes: list[CellSize | None]
    """Stages 1-8 of each cell; None where the decision scales down or the cell has no forecast."""
    targets: list[CellTarget]
    quantities: dict[str, float]
    """Signed target quantity by symbol, in coins or contracts."""
    bound: list[tuple[str, str]]
    """(level, name) of each cap that bound in stages 10 and 11."""
    kept: list[str]
    """Symbols that the band left as they stood."""
    headroom: float
    """Prices may rise by this factor before any cap is exceeded; below 1 one is."""
    limits: Limits
    """Those of stages 11 and 13 that were in force."""
    strategy_weights: dict[str, float]
    """h of the live strategies in stage 9; empty where the decision scales down."""
    penalties: dict[str, float]
    """Share of each symbol that stage 10 took; empty where the decision scales down."""
    capped: Sequence[int]
    """Signed size of each cell after stage 11."""
    wants: list[Want]
    """Symbols that could not be sized for want of a price, and why."""
    unmanaged: dict[str, float]
    """Reported quantity of each symbol that is shown and left alone, in coins."""

    @property
    def cents(self) -> Sequence[int]:
        """Final signed size of each cell."""
        return self.waterfall.last

    @property
    def moved(self) -> bool:
        """Whether a target quantity differs from the one last published."""
        before = self.holdings.intended_quantities
        return any(quantity != before.get(symbol, 0.0) for symbol, quantity in self.quantities.items())

    @property
    def newly_managed(self) -> list[str]:
        """Symbols that are managed from this decision on: with a first target, or a stray position that is closed."""
        strays = [symbol for strategy, symbol in self.holdings.cells if strategy == UNASSIGNED]
        wanted = [symbol for symbol, quantity in self.quantities.items() if quantity]
        return [symbol for symbol in dict.fromkeys([*strays, *wanted]) if symbol not in self.book.managed]

    @property
    def silent(self) -> bool:
        """Whether there is nothing to publish: nobody asked, no target moved, the same symbols are (un)managed."""
        if not self.trigger.quiet or self.moved or self.newly_managed:
            return False
        return tuple(sorted(self.unmanaged)) == self.book.unmanaged


def stronger(one: Trigger | None, other: Trigger) -> Trigger:
    """Return the trigger that names a decision called for by both; it is full if either is.

    Of two signals the one of the first cell by name: the order within an entry does not matter.
    """
    if one is None:
        return other
    named = min(one, other, key=lambda trigger: (RANKS.index(trigger.kind), trigger.cell or ()))
    return named._replace(mode=min(one.mode, other.mode, key=[*MODES].index), quiet=one.quiet and other.quiet)


def decide(state: State, portfolio: str, trigger: Trigger) -> Decision:
    """Return the portfolio's targets. Deterministic: reads the state, and changes nothing but its memo cache."""
    book = state.book(portfolio)
    holdings = hold(state, portfolio)
    cells = holdings.cells
    states = trading_states(state, portfolio, cells)
    waterfall, sizes, cuts, factors, weights, reduction = MODES[trigger.mode](state, portfolio, book, holdings, states)

    limits = cache.limits(state)
    only_cuts = trigger.mode == "scale_down"
    slack = limits.tolerance if only_cuts else 0.0
    too_small: dict[int, str] = {}
    if trigger.full and (lot_cents := _lot_cents(state)):
        capped, too_small = lots.affordable(cells, waterfall.last, factors, book.value_usd, limits, lot_cents)
    else:
        capped = caps.caps(cells, waterfall.last, factors, book.value_usd, limits, slack)
    waterfall.add("caps", capped.cents, {**_bound_reasons(cells, capped.bound), **too_small})
    bound = capped.bound if reduction is None else [*reduction.bound, *capped.bound]
    blended = _blend(state, portfolio, trigger, cells, capped.cents, factors, book, waterfall, bound)
    limited = caps.limits(cells, blended, holdings.cents, states, limits, slack)
    waterfall.add("limits", limited.cents, limited.reasons)
    standing = holdings.intended if only_cuts else holdings.cents
    band_ratio = state.params.position_sizing.band_ratio
    cents, kept = no_trade_band.settle(cells, limited.cents, standing, factors, book.value_usd, limits, band_ratio)
    reasons: dict[int, str] = {}
    if only_cuts and holdings.settled:
        cents, reasons = _at_most_held(holdings, cents)
    waterfall.add("band", cents, reasons)
    quantities, units = _quantities(state, holdings, cents, kept, only_cuts=only_cuts)
    cents, quantities, not_whole = lots.whole(cells, cents, quantities, units, limits.minimum_cents)
    waterfall.add("lots", cents, not_whole)
    return Decision(
        portfolio_id=portfolio,
        trigger=trigger,
        book=book,
        holdings=holdings,
        waterfall=waterfall,
        sizes=sizes,
        targets=[
            _target(
                cents[index],
                quantities[cell[1]],
                cuts[index],
                factors[index],
                _standing_bet(trigger, sizes[index], cents[index], holdings, index),
                holdings.targets[index] if only_cuts and cell[1] in kept else None,
            )
            for index, cell in enumerate(cells)
        ],
        quantities=quantities,
        bound=bound,
        kept=kept,
        headroom=headroom(cells, cents, factors, book.value_usd, limits),
        limits=limits,
        strategy_weights=weights,
        penalties={} if reduction is None else reduction.penalties,
        capped=capped.cents,
        wants=[*wants(state, portfolio, cells), *_below_a_lot(state, cells, {**too_small, **not_whole})],
        unmanaged={symbol: held for symbol, held in holdings.unmanaged.items() if not quantities.get(symbol)},
    )


def _target(cents: int, quantity: float, cut: float, factor: float, bet: float, kept: CellTarget | None) -> CellTarget:
    """Return what is published of a cell; a cut that was too small to publish is not taken as made."""
    if kept is not None:
        return CellTarget(cents, quantity, kept.cut, kept.cap_factor, kept.bet)
    return CellTarget(cents, quantity, cut, factor, bet)


def _standing_bet(trigger: Trigger, size: CellSize | None, cents: int, holdings: Holdings, index: int) -> float:
    """Return the signed fraction of stage 3 that a target stands for.

    A cell that was sized: its own. Otherwise the last one, cut as far as the target was; a policy's nudge is no cut.
    """
    if size is not None and size.bet is not None:
        return size.bet.forecast.side * size.bet.resized
    before, intended = holdings.targets[index], holdings.intended[index]
    if before is None or not cents:
        return 0.0
    if trigger.mode == "reuse" or not intended:
        return before.bet
    return before.bet * min(1.0, abs(cents) / abs(intended))


def room_of(state: State, portfolio: str) -> tuple[float, float]:
    """Return the smallest cap over size of what is intended, and of what is intended or held, whichever is larger.

    Below 1 a cap is exceeded. A decision that scales down cuts what is intended once it exceeds one by the tolerance.
    """
    holdings, book = hold(state, portfolio), state.book(portfolio)
    factors = [1.0 if target is None else target.cap_factor for target in holdings.targets]
    intended = headroom(holdings.cells, holdings.intended, factors, book.value_usd, cache.limits(state))
    if holdings.basis == "targets":
        return intended, intended
    larger = [max(pair, key=abs) for pair in zip(holdings.intended, holdings.cents, strict=True)]
    return intended, headroom(holdings.cells, larger, factors, book.value_usd, cache.limits(state))


def _at_most_held(holdings: Holdings, cents: Sequence[int]) -> tuple[list[int], dict[int, str]]:
    """Return the targets of a cut with each symbol that it changes at most as large as what is held of it.

    A stop that was hit at the exchange, or an order that never filled, is not bought back by a cut.
    """
    wanted, held = caps.nets(holdings.cells, cents), caps.nets(holdings.cells, holdings.cents)
    intended = caps.nets(holdings.cells, holdings.intended)
    shares: dict[str, tuple[int, int]] = {}
    for symbol, net in wanted.items():
        have = held[symbol] if held[symbol] * net > 0 else 0
        if net != intended[symbol] and abs(have) < abs(net):
            shares[symbol] = (abs(have), abs(net))
    after, reasons = list(cents), {}
    for index, (_, symbol) in enumerate(holdings.cells):
        if symbol in shares:
            have, net = shares[symbol]
            size = abs(cents[index]) * have // net
            after[index] = size if cents[index] >= 0 else -size
            reasons[index] = "a cut never buys: no more is held"
    return after, reasons


def _blend(
    state: State,
    portfolio: str,
    trigger: Trigger,
    cells: Cells,
    capped: Sequence[int],
    factors: Sequence[float],
    book: Book,
    waterfall: Waterfall,
    bound: list[tuple[str, str]],
) -> Sequence[int]:
    """Stage 12: the policy's nudges, where any are in force, and the caps again."""
    if not state.params.rl.enabled or trigger.mode == "scale_down":
        return capped
    changes = policy.nudges(state, portfolio, cells)
    if not changes:
        waterfall.add("rl", capped)
        return capped
    nudged, reasons = policy.blend(capped, changes, levels(state, cells, capped, capped))
    again = caps.caps(cells, nudged, factors, book.value_usd, cache.limits(state))
    bound += [each for each in again.bound if each not in bound]
    waterfall.add("rl", again.cents, {**reasons, **_bound_reasons(cells, again.bound)})
    return again.cents


def _bound_reasons(cells: Cells, bound: list[tuple[str, str]]) -> dict[int, str]:
    """Say at each cell which caps bound it."""
    reasons: dict[int, str] = {}
    for level, name in bound:
        for index, (strategy, symbol) in enumerate(cells):
            names = {"cell": f"{strategy}/{symbol}", "symbol": symbol, "strategy": strategy, "portfolio": name}
            if names[level] == name:
                reasons[index] = f"{reasons[index]}, {level} cap" if index in reasons else f"{level} cap"
    return reasons


def _quantities(
    state: State, holdings: Holdings, cents: Sequence[int], kept: list[str], *, only_cuts: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Return each symbol's signed quantity: its target toward zero to the lot, or what stands where nothing changes.

    And the USD of one unit of those that were computed from their cells.

    A net below the minimum is published as nothing. A quantity that stands keeps its bits: computed again from cents it
    would lose some at every decision.
    """
    minimum, sizing = cache.limits(state).minimum_cents, state.params.position_sizing
    stood, standing = (
        (holdings.intended, holdings.intended_quantities) if only_cuts else (holdings.cents, holdings.quantities)
    )
    nets = caps.nets(holdings.cells, cents)
    as_intended = _unchanged(holdings.cells, cents, holdings.intended)
    as_stood = as_intended if stood is holdings.intended else _unchanged(holdings.cells, cents, stood)
    quantities, units = {}, {}
    for symbol, net in nets.items():
        if symbol in kept:
            quantities[symbol] = standing.get(symbol, 0.0)
        elif abs(net) < minimum or not net:
            quantities[symbol] = 0.0
        elif symbol in as_intended:
            quantities[symbol] = holdings.intended_quantities.get(symbol, 0.0)
        elif symbol in as_stood:
            quantities[symbol] = standing.get(symbol, 0.0)
        elif (unit_usd := unit_now(state, symbol)) is not None:
            units[symbol] = unit_usd
            quantities[symbol] = lots.in_lots(net / (100.0 * unit_usd), lot_of(sizing, symbol))
        else:
            before = sum(size for (_, name), size in zip(holdings.cells, stood, strict=True) if name == symbol)
            share = net / before if before else 0.0
            quantities[symbol] = lots.in_lots(standing.get(symbol, 0.0) * share, lot_of(sizing, symbol))
    return quantities, units


def _below_a_lot(state: State, cells: Cells, reasons: Mapping[int, str]) -> list[Want]:
    """Return the symbols that cannot afford a lot, by name."""
    sizing = state.params.position_sizing
    found = []
    for symbol in sorted({cells[index][1]: None for index in reasons}):
        unit = "contracts" if symbol in sizing.contracts else "coins"
        text = f"one lot of {symbol} is {lot_of(sizing, symbol)} {unit}: more than its size"
        found.append(Want(symbol, "below_lot", text, forecast=False))
    return found


def _lot_cents(state: State) -> dict[str, float]:
    """Return the value of one lot of each symbol that has a price, and a lot or a contract of its own."""
    sizing, found = state.params.position_sizing, {}
    for symbol in {**sizing.lots, **sizing.contracts}:
        unit_usd = unit_now(state, symbol)
        if unit_usd is not None:
            found[symbol] = 100.0 * lot_of(sizing, symbol) * unit_usd
    return found


def _unchanged(cells: Cells, cents: Sequence[int], before: Sequence[int]) -> dict[str, None]:
    """Return the symbols all of whose cells have the size that they had before."""
    if list(cents) == before:
        return dict.fromkeys(symbol for _, symbol in cells)
    changed = {symbol: None for (_, symbol), now, was in zip(cells, cents, before, strict=True) if now != was}
    return {symbol: None for _, symbol in cells if symbol not in changed}
