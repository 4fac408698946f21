"""The fold: one journal entry changes the state and calls for decisions.

`apply` is the whole of sizing: a pure function of the state and the entry but for the state's mutation. Every kind of
entry has one handler; a handler folds and names the portfolios that have to decide.

Source: docs/pipeline.md, stage 0 and triggers.
"""

import hashlib
from collections.abc import Callable
from math import sqrt
from typing import Any

import orjson

from engines.allocation import DECISION_VERSION, render
from engines.handlers import policy_questions, returns
from engines.handlers.controls import fold_control
from engines.handlers.effects import FoldResult, Journaled, Published, Refusal, alert, warn_of_drift
from engines.handlers.market import fold_price, fold_readings, fold_step, look_again, watch_caps
from engines.handlers.outcomes import SettledClaim, learn, remember
from engines.handlers.signals import fold_signal
from engines.models import policy_gate
from engines.parameters import DecisionParams
from engines.pipeline.cell_sizing import CellSize
from engines.pipeline.decide import Decision, Trigger, decide
from engines.state import capacity, policy, strategies
from engines.state.partition import PartitionProgress, State
from engines.state.records import Book, CellRecord, Claim, Forecast, Market
from schemas.errors import AnotherVersion

SECOND_NS = 1_000_000_000


def apply(state: State, entry: Journaled) -> FoldResult:
    """Fold one entry and decide what it calls for; mutates the state.

    Raises:
        AnotherVersion: another version decides here; the text says what to run.
        ValueError: the journal does not begin with Genesis, or has a kind that this version does not know: the
            journal is not one that this worker may fold.
    """
    folded = FoldResult()
    if entry.kind == "genesis":
        _genesis(state, entry)
        return folded
    progress = state.progress
    if progress is None:
        msg = f"journal partition {state.partition}: entry {entry.offset} is a {entry.kind}, Genesis must come first"
        raise ValueError(msg)
    if progress.successor:
        raise AnotherVersion(f"{_belongs(state, entry, progress.successor)}: install version {progress.successor}")
    progress.now_ns = max(progress.now_ns, entry.journaled_at_ns)
    progress.inputs_hash = hashlib.sha256(bytes.fromhex(progress.inputs_hash) + entry.value).hexdigest()
    for key in state.due(progress.now_ns):
        _expire(state, key, folded)
    policy_questions.close_overdue(state, folded)
    if entry.topic and not _is_new(progress, entry):
        folded.note("duplicate", entry.topic)
    else:
        handler = HANDLERS.get(entry.kind)
        if handler is None:
            msg = f"journal partition {state.partition}: entry {entry.offset} has unknown kind {entry.kind!r}"
            raise ValueError(msg)
        handler(state, entry, folded)
    for portfolio in sorted(folded.triggers):
        decision = decide(state, portfolio, folded.triggers[portfolio])
        if decision.silent:
            continue
        folded.allocations.append(_publish(state, entry, decision, folded))
    return folded


# -- publishing ----------------------------------------------------------------------------------------------------
def _publish(state: State, entry: Journaled, decision: Decision, folded: FoldResult) -> Published:
    claimed = folded.claimed.get(decision.portfolio_id, [])
    policy_questions.keep(state, decision, claimed, entry.offset, folded)
    value, value_hash = render(state, decision, entry.offset)
    portfolio, book = decision.portfolio_id, decision.book
    idle = False
    for (strategy, symbol), target in zip(decision.holdings.cells, decision.targets, strict=True):
        key = (portfolio, strategy, symbol)
        if target.cents or state.get("targets", key) is not None:
            state.put_target(key, target)
        idle = idle or not target.cents
    _claim(state, entry, decision, claimed)
    _forecasts(state, decision, claimed)
    watches = _watches(state, decision.quantities, decision.headroom)
    sequence = book.sequence + 1
    moved = decision.moved
    after = book._replace(
        sequence=sequence,
        last_hash=value_hash,
        watches=watches,
        changed_sequence=sequence if moved else book.changed_sequence,
        changed_ns=state.now_ns if moved else book.changed_ns,
        managed=tuple(sorted((*book.managed, *decision.taken_charge_of))),
        unmanaged=tuple(sorted(decision.unmanaged)),
        waiting=tuple(want.symbol for want in decision.wants if want.forecast)
        if decision.trigger.full
        else book.waiting,
        breached=book.breached and decision.holdings.basis == "positions",
    )
    state.put_book(portfolio, after)
    if idle:
        state.forget_idle_cells(portfolio)
    return Published(decision, sequence, value)


def _forecasts(state: State, decision: Decision, claimed: list[tuple[str, str]]) -> None:
    """Let the forecasts of all live cells on the symbols of this entry's signals tell how alike strategies are."""
    for symbol in sorted(dict.fromkeys(symbol for _, symbol in claimed)):
        ratios = [
            size.bet.forecast_ratio
            for (_, name), size in zip(decision.holdings.cells, decision.sizes, strict=True)
            if name == symbol and size is not None and size.bet is not None
        ]
        if len(ratios) > 1:
            strategies.forecasted(state, decision.portfolio_id, ratios)


def _claim(state: State, entry: Journaled, decision: Decision, cells: list[tuple[str, str]]) -> None:
    """Remember what the signals of this entry claimed, so that their outcomes can be learnt from."""
    for named in dict.fromkeys(cells):
        size = decision.sizes[decision.holdings.cells.index(named)]
        key = (decision.portfolio_id, *named)
        cell: CellRecord = state.tables["predictions"][key]
        if size is not None and cell.forecast is not None:
            claim = _claim_of(state, entry, key, cell.forecast, size)
            state.put("predictions", key, remember(cell, claim, entry.journaled_at_ns))


def _claim_of(state: State, entry: Journaled, key: tuple[str, ...], forecast: Forecast, size: CellSize) -> Claim:
    target = state.get("targets", key)
    scores = state.get("conformal-scores", key)
    wanted = None if size.bet is None else size.bet.kelly
    return Claim(
        entry.offset,
        forecast.signal_id,
        forecast.timestamp_ns,
        forecast.side,
        forecast.confidence,
        forecast.expected_return,
        forecast.volatility,
        0.0 if wanted is None else wanted.mean,
        forecast.costs,
        0.0 if wanted is None else wanted.variance,
        1.0 if scores is None else sqrt(scores.mean_square),
        forecast.horizon_s,
        0.0 if target is None else target.cents / (100.0 * state.book(key[0]).value_usd),
    )


def _watches(state: State, quantities: dict[str, float], headroom: float) -> tuple[tuple[str, float], ...]:
    """Return the price of each held symbol below which no cap of the portfolio is exceeded by the tolerance."""
    reach = headroom * (1.0 + state.limits.tolerance) * (1.0 - 1e-9)
    watches = []
    for symbol, quantity in quantities.items():
        market: Market | None = state.get("markets", (symbol,))
        if quantity and market is not None and market.bars is not None:
            watches.append((symbol, market.bars.last_price * reach))
    return tuple(watches)


# -- entry kinds ---------------------------------------------------------------------------------------------------
def _genesis(state: State, entry: Journaled) -> None:
    body = entry.body
    if state.progress is not None:
        msg = f"journal partition {state.partition}: entry {entry.offset} is a second Genesis"
        raise ValueError(msg)
    if body["decision_version"] != version_of(state):
        found = body["decision_version"]
        how = f"run version {found}, which hands over with: himari worker --drain --to {version_of(state)}"
        raise AnotherVersion(f"{_belongs(state, entry, found)}: {how}")
    state.use(DecisionParams.model_validate(body["settings"]))
    journal_id = body["journal_id"]
    state.progress = PartitionProgress(
        journal_id,
        body["partitions"],
        entry.journaled_at_ns,
        hashlib.sha256(journal_id.encode() + entry.value).hexdigest(),
        state.params.model_dump(),
        state.settings_hash,
        {},
        {},
        version_of(state),
    )


def _is_new(progress: PartitionProgress, entry: Journaled) -> bool:
    """Return whether the source record was not folded before, and raise its high-water."""
    source = progress.sources.setdefault(entry.topic, {"epoch": entry.epoch, "offsets": {}})
    if entry.epoch < source["epoch"]:
        return False
    if entry.epoch > source["epoch"]:
        source = progress.sources[entry.topic] = {"epoch": entry.epoch, "offsets": {}}
    offsets = source["offsets"]
    name = str(entry.partition)
    if entry.source_offset <= offsets.get(name, -1):
        return False
    offsets[name] = entry.source_offset
    return True


def _expire(state: State, key: tuple[str, ...], folded: FoldResult) -> None:
    cell: CellRecord = state.tables["predictions"][key]
    state.put("predictions", key, cell._replace(forecast=None))
    state.bets.pop(key, None)
    state.sizes.pop(key, None)
    if state.get("targets", key) is None:
        state.forget_idle_cells(key[0])
    else:
        trigger = Trigger("expiry", f"{key[1]}/{key[2]}", mode="full", cell=(key[1], key[2]))
        folded.call_for(key[0], trigger)


def _signal(state: State, entry: Journaled, folded: FoldResult) -> None:
    fold_signal(state, entry, entry.body, folded)


def _cascade(state: State, entry: Journaled, folded: FoldResult) -> None:
    fold_readings(state, entry, entry.body, folded)


def _tick(state: State, entry: Journaled, folded: FoldResult) -> None:
    look_again(state, entry.offset, folded)


def _outcome(state: State, entry: Journaled, folded: FoldResult) -> None:
    learnt = learn(state, entry.body)
    if isinstance(learnt, str):
        folded.refusals.append(Refusal(entry.topic, "unmatched", "decision_id", f"{entry.topic}: {learnt}"))
    else:
        _of_strategies(state, entry, learnt, folded)
        _of_the_policy(state, entry, learnt, folded)
        folded.note("trade", "win" if learnt.won else "loss")
        folded.note("residual", "", learnt.residual)


def _of_strategies(state: State, entry: Journaled, learnt: SettledClaim, folded: FoldResult) -> None:
    """Let an outcome move the weights of the portfolio's strategies; a drift that reaches the threshold alerts."""
    portfolio, strategy, _ = learnt.key
    claim = learnt.claim
    drifted = strategies.learn(
        state, portfolio, strategy, claim.side, entry.body["realized_return"], claim.volatility, learnt.weight
    )
    if drifted:
        warn_of_drift(state, folded, entry.offset, portfolio)


def _of_the_policy(state: State, entry: Journaled, learnt: SettledClaim, folded: FoldResult) -> None:
    """Let an outcome tell whether the policy's size was the better one; outcomes that overlap do not count again."""
    advised = learnt.claim.advised
    if advised is None or learnt.weight < 1.0:
        return
    portfolio = learnt.key[0]
    before, after = policy.score(state, portfolio, *advised, entry.body["realized_return"])
    folded.note("scored", portfolio)
    if after.status != before.status:
        lower, _ = policy_gate.interval(after, state.params.rl.gate)
        severity = "info" if after.status == "open" else "warning"
        alert(
            state,
            folded,
            entry.offset,
            "rl_gate",
            portfolio,
            severity=severity,
            value=lower,
            threshold=0.0,
            result=after.status,
        )


def _positions(state: State, entry: Journaled, folded: FoldResult) -> None:
    body = entry.body
    portfolio = body["portfolio_id"]
    book = state.book(portfolio)
    if book.positions is not None and body["timestamp_ns"] <= book.positions_ns:
        folded.note("older_positions", portfolio)
        return
    as_of = body.get("as_of_sequence")
    broken = capacity.no_room_for_portfolio(state, portfolio) or _not_published(book, as_of)
    if broken is not None:
        folded.refuse(entry, *broken)
        return
    positions = tuple(sorted((symbol, float(quantity)) for symbol, quantity in body["quantities"].items()))
    value = body.get("equity")
    value = book.value_usd if value is None else float(value)
    after = book._replace(
        positions=positions,
        positions_ns=body["timestamp_ns"],
        as_of_sequence=as_of,
        value_usd=value,
        peak_usd=max(book.peak_usd, value),
    )
    state.put_book(portfolio, after)
    for symbol, quantity in positions:
        if quantity:
            state.holders.setdefault(symbol, {})[portfolio] = None
    strays = any(quantity and symbol not in book.managed for symbol, quantity in positions)
    if value != book.value_usd or strays or book.unmanaged:
        folded.call_for(portfolio, Trigger("value", "positions", mode="scale_down", cell=None, quiet=True))
    watch_caps(state, entry.offset, portfolio, folded)


def _not_published(book: Book, as_of: int | None) -> capacity.Broken:
    """Return why a report that names an allocation which was never published is not taken, None where it is."""
    if as_of is None or as_of <= book.sequence:
        return None
    return "as_of_sequence", f"must be at most {book.sequence}, the newest allocation's sequence, was {as_of}"


def _adopt(state: State, entry: Journaled, _folded: FoldResult) -> None:
    """A source topic was created anew: its offsets begin again."""
    if state.progress is not None:
        state.progress.sources[entry.body["topic"]] = {"epoch": entry.body["epoch"], "offsets": {}}


def _engine(state: State, entry: Journaled, _folded: FoldResult) -> None:
    """Hand over to another version: this one folds nothing more. What tells of the state handed over changes nothing.

    Raises:
        ValueError: the version in force is not the one that hands over.
    """
    body = entry.body
    if "state" in body or body["to_version"] == body["from_version"]:
        return
    if body["from_version"] != version_of(state) or state.progress is None:
        msg = f"entry {entry.offset} hands over from decision version {body['from_version']}, not {version_of(state)}"
        raise ValueError(msg)
    state.progress.successor = body["to_version"]


def version_of(state: State) -> int:
    """Return the version by which this state is decided on."""
    return state.version or DECISION_VERSION


def _belongs(state: State, entry: Journaled, version: int) -> str:
    place = f"journal {state.partition}:{entry.offset}"
    return f"{place} is of decision version {version}, this is version {version_of(state)}"


def _answer(state: State, entry: Journaled, folded: FoldResult) -> None:
    policy_questions.answered(state, entry.body, folded)


def _call(state: State, entry: Journaled, folded: FoldResult) -> None:
    """Fold one library call: prices, readings, signals, a policy's answers to an earlier one, all of one moment."""
    body = entry.body
    step_s = state.params.market.step_s
    for symbol, price in sorted(body.get("prices", {}).items()):
        end_ns = -(-entry.journaled_at_ns // (step_s * SECOND_NS)) * step_s * SECOND_NS
        fold_price(state, entry, folded, symbol, [price, price, price, price, 0.0, 1], end_ns, 0)
    for readings in body.get("cascade", ()):
        fold_readings(state, entry, readings, folded)
    returns.close(state, entry.journaled_at_ns, entry.offset, folded)
    if "returns" in body:
        returns.take(state, body["returns"], entry.journaled_at_ns, entry.offset, folded)
    look_again(state, entry.offset, folded)
    for signal in sorted(body.get("signals", ()), key=_canonical):
        fold_signal(state, entry, signal, folded)
    for answer in body.get("answers", ()):
        policy_questions.answered(state, answer, folded)


def _canonical(signal: dict[str, Any]) -> tuple[Any, ...]:
    """Return what orders the signals of one call, whose own order must change nothing."""
    cell = (signal.get("portfolio_id", "main"), signal["strategy_id"], signal["symbol"])
    return (*cell, signal["timestamp_ns"], orjson.dumps(signal, option=orjson.OPT_SORT_KEYS))


HANDLERS: dict[str, Callable[[State, Journaled, FoldResult], None]] = {
    "signal": _signal,
    "cascade": _cascade,
    "step": fold_step,
    "tick": _tick,
    "outcome": _outcome,
    "positions": _positions,
    "control": fold_control,
    "adopt": _adopt,
    "engine": _engine,
    "call": _call,
    "advice": _answer,
    "no_advice": _answer,
}
