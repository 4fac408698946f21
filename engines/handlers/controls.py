"""Fold a control record: settings, trading states, a portfolio's value, slots to be freed.

Every answer is an alert of kind `control_applied`, which is what a waiting operator reads.
"""

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from engines.handlers import policy_questions, returns, slots
from engines.handlers.effects import FoldResult, Journaled, alert
from engines.parameters import DecisionParams, tree_hash
from engines.pipeline.decide import Trigger
from engines.pipeline.sizing_modes import ACTIVE
from engines.state import capacity, overrides
from engines.state.partition import MARKET_WIDE, POLICY, State
from engines.state.records import Book, Gate, ScopeOverrides

TOLD_CHARS_MAX = 1_000
"""An answer is read by people, and an alert has to fit its topic whatever was ordered."""


def fold_control(state: State, entry: Journaled, folded: FoldResult) -> None:
    """Carry out an order, and answer it."""
    body = entry.body
    result = CONTROLS[body["kind"]](state, body["payload"], entry, folded)
    alert(state, folded, entry.offset, "control_applied", body["control_id"], severity="info", result=result)


def changed_settings(payload: dict[str, Any], in_force: str) -> DecisionParams | str:
    """Return the settings that an order puts in force, or the answer to an order that changes nothing.

    `in_force`: hash of the settings in force.
    """
    if payload["hash"] == in_force:
        return "no_op"
    if payload["base_hash"] != in_force:
        return f"conflict: based on {payload['base_hash']}, in force is {in_force}"
    try:
        params = DecisionParams.model_validate(payload["tree"])
    except ValidationError as error:
        first = error.errors()[0]
        text = f"invalid: {'.'.join(map(str, first['loc']))}: {first['msg']}, was {first['input']!r}"
        return text[:TOLD_CHARS_MAX]
    if tree_hash(params) != payload["hash"]:
        return f"invalid: the tree's hash is {tree_hash(params)}, not {payload['hash']}"
    return params


def _settings(state: State, payload: dict[str, Any], entry: Journaled, folded: FoldResult) -> str:
    params = changed_settings(payload, state.settings_hash)
    if isinstance(params, str):
        return params
    if _widths(params) != _widths(state.params):
        _restart_bars(state)
    if _evidence(params) != _evidence(state.params):
        _restart_evidence(state)
    state.use(params)
    if state.progress is not None:
        state.progress.settings, state.progress.settings_hash = params.model_dump(), state.settings_hash
    for portfolio in _holding(state, "all"):
        folded.call_for(portfolio, Trigger("settings", entry.body["control_id"], mode="scale_down", cell=None))
    return "applied"


def _widths(params: DecisionParams) -> tuple[int, int]:
    return params.market.step_s, params.market.bar_s


def _restart_bars(state: State) -> None:
    """Steps or bars of another width do not continue the old ones."""
    for (symbol,), market in list(state.markets.items()):
        if market.bars is not None:
            state.put_market(symbol, market._replace(bars=None))
    returns.restart(state)


def _evidence(params: DecisionParams) -> tuple[float, float]:
    return params.rl.gate.bound, params.rl.gate.alpha


def _restart_evidence(state: State) -> None:
    """Sums in units of another bound, or an interval of another error rate, prove nothing; what is closed stays so."""
    for (portfolio,), gate in list(state.gates.items()):
        state.gates.put((portfolio,), Gate("closed" if gate.status == "closed" else "collecting"))


def _trading_state(state: State, payload: dict[str, Any], entry: Journaled, folded: FoldResult) -> str:
    """Change a scope's state. What changes nothing decides nothing: a real order may wait behind thousands of those."""
    scope, wanted = payload["scope"], payload["state"]
    before = state.ordered(MARKET_WIDE)
    if payload.get("everything"):
        after = overrides.NONE
    else:
        if wanted != ACTIVE:
            broken = capacity.no_room_for_scope(before, scope)
            if broken is not None:
                return f"rejected: {' '.join(broken)}"
        after = overrides.changed(before, scope, None if wanted == ACTIVE else wanted)
    if after == before:
        return "no_op"
    state.scopes.put((MARKET_WIDE,), ScopeOverrides(after))
    resumed, control_id = wanted == ACTIVE, entry.body["control_id"]
    trigger = Trigger(
        "resume" if resumed else "control", control_id, mode="full" if resumed else "scale_down", cell=None
    )
    for portfolio in _live(state, scope) if resumed else _holding(state, scope):
        folded.call_for(portfolio, trigger)
    return "applied"


def _portfolio_value(state: State, payload: dict[str, Any], entry: Journaled, folded: FoldResult) -> str:
    portfolio, value = payload["portfolio_id"], float(payload["value_usd"])
    broken = capacity.no_room_for_portfolio(state, portfolio)
    if broken is not None:
        return f"rejected: {' '.join(broken)}"
    book = state.book(portfolio)
    doubtful = _far_from_known(state, book, value)
    if doubtful and not payload.get("reset_peak"):
        return doubtful
    peak = value if payload.get("reset_peak") else max(book.peak_usd, value)
    stated = book._replace(value_usd=value, peak_usd=peak, known_usd=value, suspect_usd=0.0, suspect_ns=0, leapt_ns=0)
    state.put_book(portfolio, stated)
    if _holding(state, f"portfolio:{portfolio}"):
        folded.call_for(portfolio, Trigger("value", entry.body["control_id"], mode="scale_down", cell=None))
    return "applied"


def _far_from_known(state: State, book: Book, value: float) -> str:
    """Return the answer to an order that states an equity far from the last known one, "" where it is near."""
    known, ratio = book.known_usd, state.params.market.collar.doubt_ratio
    if not known or known / ratio <= value <= known * ratio:
        return ""
    return (
        f"rejected: value_usd must be within a factor of {ratio:g} of {known:.2f}, the equity last reported or stated, "
        f"was {value:.2f}; with reset_peak it is applied"
    )


def _rl_mode(state: State, payload: dict[str, Any], entry: Journaled, folded: FoldResult) -> str:
    """Set how far the policy may act; a closed gate collects its evidence again from the start."""
    scope, mode = payload.get("scope", "all"), payload["mode"]
    kind, _, name = scope.partition(":")
    if not state.params.rl.enabled:
        return "rejected: rl.enabled is false"
    state.scopes.put((POLICY,), ScopeOverrides(overrides.changed(state.ordered(POLICY), scope, mode)))
    for (portfolio,), gate in list(state.gates.items()):
        if gate.status == "closed" and (kind == "all" or (kind == "portfolio" and name == portfolio)):
            state.gates.put((portfolio,), Gate())
    portfolios = sorted(portfolio for (portfolio,) in state.questions)
    concerned = [name] if kind == "portfolio" else portfolios
    policy_questions.revise_all(state, entry.body["control_id"], concerned, folded)
    return "applied"


def _forget(state: State, payload: dict[str, Any], entry: Journaled, folded: FoldResult) -> str:
    return slots.forget(state, entry.offset, payload, folded)


CONTROLS: dict[str, Callable[[State, dict[str, Any], Journaled, FoldResult], str]] = {
    "settings": _settings,
    "trading_state": _trading_state,
    "portfolio_value": _portfolio_value,
    "rl_mode": _rl_mode,
    "forget": _forget,
}


def covers(scope: str, cell: tuple[str, ...]) -> bool:
    """Return whether a scope names a cell: (portfolio, strategy, symbol)."""
    portfolio, strategy, symbol = cell
    return scope in {"all", f"portfolio:{portfolio}", f"strategy:{strategy}", f"symbol:{symbol}"}


def _holding(state: State, scope: str) -> list[str]:
    """Return the portfolios that hold a cell of a scope."""
    kind, _, name = scope.partition(":")
    if kind == "portfolio":
        return [name] if _holds(state, name) else []
    held = {key[0]: None for key in state.targets if covers(scope, key)}
    for (portfolio,), book in state.books.items():
        if any(quantity and covers(scope, (portfolio, "-", symbol)) for symbol, quantity in book.positions or ()):
            held[portfolio] = None
    return sorted(held)


def _holds(state: State, portfolio: str) -> bool:
    """Return whether a portfolio has a target or a position."""
    if any((portfolio, *cell) in state.targets for cell in state.cells_of.get(portfolio, ())):
        return True
    book = state.books.get((portfolio,))
    return book is not None and any(quantity for _, quantity in book.positions or ())


def _live(state: State, scope: str) -> list[str]:
    """Return the portfolios that have a cell of a scope."""
    kind, _, name = scope.partition(":")
    if kind == "portfolio":
        return [name] if state.cells_of.get(name) else []
    return sorted(
        portfolio
        for portfolio, cells in state.cells_of.items()
        if any(covers(scope, (portfolio, *cell)) for cell in cells)
    )
