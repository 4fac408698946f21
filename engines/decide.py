"""Stages 1 to 14: from a portfolio's state and a trigger to its targets.

A full decision sizes every live cell afresh. A decision *by ratio* (no solver, no claims) only carries new cuts,
caps and trading states onto what is held; one on a policy's answer nudges what the caps had left (`engines.ways`). All
end in the caps, the policy's nudge, the limits and the band, in this order; nothing runs after them.

Source: the pipeline specification.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from engines import band, caps, policy
from engines.caps import Limits
from engines.headroom import headroom
from engines.holdings import Holdings, hold
from engines.records import Book, Target
from engines.sizing import CellSize
from engines.state import State
from engines.waterfall import Waterfall
from engines.ways import Sized, afresh, as_kept, by_ratio, levels, promised, trading_states
from schemas.words import TradingState

Cells = Sequence[tuple[str, str]]
Way = Literal["afresh", "ratio", "kept"]

WAYS: dict[Way, Callable[[State, str, Book, Holdings, list[TradingState]], Sized]] = {
    "afresh": afresh,
    "ratio": by_ratio,
    "kept": as_kept,
}
"""How a decision comes by its sizes; of two that are called for, the first of these."""
RANKS = ("signal", "expiry", "resume", "control", "value", "settings", "cascade", "cap", "advice", "deadline")


class Trigger(NamedTuple):
    """What called for a decision."""

    kind: str
    """One of `RANKS`."""
    id: str
    way: Way
    """afresh: every live cell is sized; ratio: what is held is cut; kept: what a decision's caps left is nudged."""
    cell: tuple[str, str] | None
    """(strategy, symbol) whose waterfall is shown, where there is one."""

    @property
    def full(self) -> bool:
        """Whether every live cell is sized afresh."""
        return self.way == "afresh"


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
    capped: Sequence[int]
    """Signed size of each cell after stage 11."""
    forced: Sequence[bool]
    """Whether a cut, a cap or a trading state holds each cell down."""

    @property
    def cents(self) -> Sequence[int]:
        """Final signed size of each cell."""
        return self.waterfall.last


def stronger(one: Trigger | None, other: Trigger) -> Trigger:
    """Return the trigger that names a decision called for by both; it is full if either is.

    Of two signals the one of the first cell by name: the order within an entry does not matter.
    """
    if one is None:
        return other
    named = min(one, other, key=lambda trigger: (RANKS.index(trigger.kind), trigger.cell or ()))
    return named._replace(way=min(one.way, other.way, key=[*WAYS].index))


def decide(state: State, portfolio: str, trigger: Trigger) -> Decision:
    """Return the portfolio's targets; of the state nothing changes but what it keeps of stages 2 and 3."""
    book = state.book(portfolio)
    holdings = hold(state, portfolio)
    cells, held = holdings.cells, holdings.cents
    states = trading_states(state, portfolio, cells)
    sized = WAYS[trigger.way](state, portfolio, book, holdings, states)
    waterfall, sizes, cuts, factors, forced, weights, reduction = sized

    limits = state.limits
    wanted = waterfall.last
    capped = caps.caps(cells, wanted, factors, book.value_usd, limits)
    waterfall.add("caps", capped.cents, _bound_reasons(cells, capped.bound))
    down = [was or abs(cap) < abs(want) for was, want, cap in zip(forced, wanted, capped.cents, strict=True)]
    bound = capped.bound if reduction is None else [*reduction.bound, *capped.bound]
    blended = _blend(state, portfolio, trigger, cells, capped.cents, factors, book, waterfall, bound)
    limited = caps.limits(cells, blended, held, states, limits)
    waterfall.add("limits", limited.cents, limited.reasons)
    settled = band.settle(
        cells,
        limited.cents,
        held,
        [force and abs(limit) < abs(now) for force, limit, now in zip(down, limited.cents, held, strict=True)],
        levels(state, cells, limited.cents, held),
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
        bound,
        settled.kept,
        headroom(cells, settled.cents, factors, book.value_usd, limits),
        limits,
        weights,
        {} if reduction is None else reduction.penalties,
        capped.cents,
        down,
    )


def breaks_a_cap(state: State, portfolio: str) -> bool:
    """Return whether what the portfolio holds, at present prices, breaks a cap of stage 11 or the maximum of 13."""
    return room_of(state, hold(state, portfolio), state.book(portfolio)) < 1.0


def room_of(state: State, holdings: Holdings, book: Book) -> float:
    """Return the smallest cap over size of what is to be held, with the factors that a decision by ratio takes.

    Below 1 a cap is broken, and that decision cuts.
    """
    factors = [1.0 if target is None else target.cap_factor for target in holdings.targets]
    return headroom(holdings.cells, promised(book, holdings), factors, book.value_usd, state.limits)


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
    if not state.params.rl.enabled or trigger.way == "ratio":
        return capped
    changes = policy.nudges(state, portfolio, cells)
    if not changes:
        waterfall.add("rl", capped)
        return capped
    nudged, reasons = policy.blend(capped, changes, levels(state, cells, capped, capped))
    again = caps.caps(cells, nudged, factors, book.value_usd, state.limits)
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
