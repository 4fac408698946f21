"""The explanation of one decision: inputs, each stage with its reason, limits, and whether it verifies."""

import hashlib
from collections.abc import AsyncIterable, Iterator
from typing import Any, Final, NamedTuple

import orjson

from engines.fold import apply
from engines.models import cascade
from engines.pipeline.caps import Limits
from engines.pipeline.cell_sizing import CellSize
from engines.pipeline.decide import Decision
from engines.pipeline.publish import Published
from engines.pipeline.sizing_modes import trading_states
from engines.state.partition import MARKET_WIDE, State
from engines.state.records import Forecast
from schemas.errors import NotFound
from schemas.vocabulary import RECOMMENDATIONS
from streams.audits.refold import GENESIS, Checkpoint, restored
from streams.evidence.decision_id import DecisionName
from streams.evidence.provenance import Seen, Witness
from streams.evidence.verifier import difference
from streams.journal import entries as journal
from streams.processing.ports import Record
from streams.reports.weight_history import instant

SECOND_NS: Final = 1_000_000_000

ExplanationFields = dict[str, Any]


class Again(NamedTuple):
    """A decision recomputed from the journal."""

    state: State
    """After the decision's entry, or where the fold stopped."""
    witness: Witness
    published: Published | None
    finding: str
    """Why there is no decision; "" if there is one."""


class Copies(NamedTuple):
    """The published records of a decision."""

    values: list[bytes]
    """More than one if it was published repeatedly."""
    last_offset: int
    """Journal offset of the newest decision published on the partition; -1: none."""


# -- from the cluster --------------------------------------------------------------------------------------------------
async def again(name: DecisionName, entries: AsyncIterable[Record], start: Checkpoint = GENESIS) -> Again:
    """Fold a journal partition from its beginning, or from a checkpoint, up to the decision's entry."""
    state, witness = restored(name.partition, start), Witness(name.portfolio_id)
    if start.meta is not None:
        witness.resume(state, start.offset)
    async for record in entries:
        expected = 0 if witness.entry is None else witness.entry.offset + 1
        place = f"journal {name.partition}:{expected}"
        if record.offset != expected:
            return Again(state, witness, None, f"{place} is missing, next is offset {record.offset}")
        try:
            entry = journal.read(record.offset, record.value)
            folded = apply(state, entry)
        except Exception as error:  # noqa: BLE001 any failure on a tampered entry is a finding
            return Again(state, witness, None, f"{place} cannot be folded: {type(error).__name__}: {error}")
        if state.progress is not None and state.progress.journal_id != name.journal_id:
            return Again(state, witness, None, f"the journal is {state.progress.journal_id}, not {name.journal_id}")
        witness.see(state, entry, folded, state.touched)
        state.touched.clear()
        if record.offset == name.offset:
            mine = (each for each in folded.allocations if each.decision.portfolio_id == name.portfolio_id)
            found = next(mine, None)
            return Again(state, witness, found, "" if found else f"{place} has no decision for {name.portfolio_id}")
    end = 0 if witness.entry is None else witness.entry.offset + 1
    return Again(state, witness, None, f"journal partition {name.partition} ends at offset {end}")


async def copies(name: DecisionName, sequence: int | None, published: AsyncIterable[Record]) -> Copies:
    """Return what is published under a decision's id, or at its position in its portfolio's sequence."""
    values, last = [], -1
    quoted = orjson.dumps(str(name))
    async for record in published:
        value = record.value or b""
        try:
            fields = orjson.loads(value)
            same_place = (fields["portfolio_id"], fields["sequence"]) == (name.portfolio_id, sequence)
            last = max(last, fields["journal"]["offset"])
        except (KeyError, TypeError, ValueError):
            fields, same_place = {}, False
        if same_place or quoted in value:
            values.append(bytes(value))
    return Copies(values, last)


# -- the verdict -------------------------------------------------------------------------------------------------------
def verdict(name: DecisionName, found: Again, known: Copies) -> ExplanationFields:
    """Return whether the recomputed decision equals the published one.

    `status`: equal; different; missing (decided but not published, while later ones are); or pending (decided, and
    nothing later is published yet).

    Raises:
        NotFound: the decision is neither in the journal nor in the allocations.
    """
    computed = None if found.published is None else found.published.value
    if computed is None and not known.values:
        msg = f"decision {name} not found: {found.finding}"
        raise NotFound(msg)
    status, finding = "equal", ""
    if computed is None:
        status, finding = "different", f"published, but {found.finding}"
    elif not known.values:
        status = "missing" if known.last_offset > name.offset else "pending"
        finding = "in the journal, but not published"
    else:
        finding = next((text for value in known.values if (text := difference(value, computed))), "")
        status = "different" if finding else "equal"
    return {
        "status": status,
        "finding": finding or None,
        "copies": len(known.values),
        "published_sha256": [hashlib.sha256(value).hexdigest() for value in dict.fromkeys(known.values)],
        "computed_sha256": None if computed is None else hashlib.sha256(computed).hexdigest(),
    }


def agrees(verification: ExplanationFields) -> bool:
    """Return whether a decision is equal or still pending."""
    return verification["status"] in {"equal", "pending"}


# -- the explanation ---------------------------------------------------------------------------------------------------
def account(name: DecisionName, found: Again, known: Copies) -> ExplanationFields:
    """Return the explanation of a decision as plain JSON values; `decision` is None if it cannot be recomputed.

    Raises:
        NotFound: the decision is neither in the journal nor in the allocations.
    """
    explanation: ExplanationFields = {
        "decision_id": str(name),
        "portfolio_id": name.portfolio_id,
        "journal": {"partition": name.partition, "offset": name.offset},
        "verification": verdict(name, found, known),
        "decision": None,
    }
    if found.published is None:
        return explanation
    decision, state = found.published.decision, found.state
    fields = orjson.loads(found.published.value)
    kept = ("sequence", "basis", "final", "targets", "totals", "portfolio_value", "previous_hash", "inputs_hash")
    explanation["decision"] = {
        **{field: fields[field] for field in kept},
        "decided_at": instant(fields["timestamp_ns"]),
        "decision_version": fields["decision_version"],
        "trigger": _trigger(decision, found.witness),
        "inputs": _inputs(state, decision, found.witness),
        "limits": _limits(decision.limits, decision.book.value_usd),
        "bound": [f"{level}:{name}" for level, name in decision.bound],
        "kept": decision.kept,
        "cells": list(_cells(state, decision)),
        "portfolio": fields["portfolio_waterfall"],
    }
    return explanation


def _trigger(decision: Decision, witness: Witness) -> ExplanationFields:
    trigger = decision.trigger
    cell = None if trigger.cell is None else list(trigger.cell)
    return {"kind": trigger.kind, "id": trigger.id, "full": trigger.full, "cell": cell, "entry": _entry(witness.entry)}


def _inputs(state: State, decision: Decision, witness: Witness) -> ExplanationFields:
    symbols = sorted({symbol for _, symbol in decision.holdings.cells})
    return {
        "forecasts": [
            row for cell in decision.holdings.cells if (row := _forecast(state, decision, witness, cell)) is not None
        ],
        "prices": [_price(state, witness, symbol) for symbol in symbols],
        "readings": [_reading(witness, *found) for found in witness.readings_of(symbols)],
        "regimes": [_regime(state, decision.portfolio_id, symbol, witness) for symbol in symbols],
        "settings": {"hash": state.settings_hash, "order": _order(witness.settings), "entry": _entry(witness.settings)},
        "trading_states": [
            {"scope": scope, "state": word, "order": _order(seen), "entry": _entry(seen)}
            for scope, word, seen in _scopes(state, witness)
        ],
        "equity": {
            "value_usd": decision.book.value_usd,
            "peak_usd": decision.book.peak_usd,
            "entry": _entry(witness.value),
        },
        "positions": {"known": decision.book.positions is not None, "entry": _entry(witness.positions)},
        "outcomes": {
            "learnt": sum(each.outcomes for each in witness.learnt.values()),
            "cells": [
                {"strategy_id": cell[0], "symbol": cell[1], "learnt": each.outcomes, "last": each.last.as_dict()}
                for cell, each in sorted(witness.learnt.items())
            ],
        },
        "strategy_weights": {"weights": decision.strategy_weights, "entry": _entry(witness.weights)},
        "correlations": {"entry": _entry(witness.correlations)},
    }


def _entry(seen: Seen | None) -> ExplanationFields | None:
    return None if seen is None else seen.as_dict()


def _order(seen: Seen | None) -> ExplanationFields | None:
    """Return who ordered it and why; None for Genesis."""
    if seen is None or seen.order is None:
        return None
    return {name: seen.order[name] for name in ("control_id", "by", "reason")}


def _forecast(state: State, decision: Decision, witness: Witness, cell: tuple[str, str]) -> ExplanationFields | None:
    known = state.predictions.get((decision.portfolio_id, *cell))
    forecast: Forecast | None = None if known is None else known.forecast
    if forecast is None:
        return None
    return {
        "strategy_id": cell[0],
        "symbol": cell[1],
        **forecast._asdict(),
        "expires_at": instant(forecast.expires_ns),
        "entry": _entry(witness.forecasts.get(cell)),
    }


def _price(state: State, witness: Witness, symbol: str) -> ExplanationFields:
    market = state.markets.get((symbol,))
    bars = None if market is None else market.bars
    return {
        "symbol": symbol,
        "price": None if bars is None else bars.last_price,
        "age_s": None if bars is None else (state.now_ns - bars.last_ns) / SECOND_NS,
        "entry": None if bars is None else _entry(witness.prices.get(symbol)),
    }


def _reading(witness: Witness, symbol: str, name: str, seen: Seen) -> ExplanationFields:
    gauge = witness.gauge(symbol, name)
    return {
        "symbol": None if symbol == MARKET_WIDE else symbol,
        "reading": name,
        "value": None if gauge is None else gauge[0],
        "at": None if gauge is None else instant(gauge[1]),
        "entry": seen.as_dict(),
    }


def _regime(state: State, portfolio: str, symbol: str, witness: Witness) -> ExplanationFields:
    known = state.regimes.get((portfolio, symbol))
    return {
        "symbol": symbol,
        "confirmed": "ranging" if known is None else known.confirmed,
        "candidate": None if known is None else known.candidate,
        "entry": _entry(witness.regimes.get(symbol)),
    }


def _scopes(state: State, witness: Witness) -> Iterator[tuple[str, str, Seen | None]]:
    for scope, word in state.ordered(MARKET_WIDE):
        yield scope, word, witness.scopes.get(scope)


def _limits(limits: Limits, value_usd: float) -> ExplanationFields:
    """Return the limits in force, as ratios of portfolio value and in cents."""
    value_cents = max(0.0, 100.0 * value_usd)
    return {
        "position": {"ratio": limits.position, "cents": int(limits.position * value_cents)},
        "strategy": {"ratio": limits.strategy, "cents": int(limits.strategy * value_cents)},
        "portfolio": {"ratio": limits.gross, "cents": int(limits.gross * value_cents)},
        "min_position": {"cents": limits.minimum_cents},
        "max_position": {"cents": limits.maximum_cents},
    }


def _cells(state: State, decision: Decision) -> Iterator[ExplanationFields]:
    """Yield each cell with its steps through the stages, which end at its target."""
    holdings, waterfall = decision.holdings, decision.waterfall
    words = trading_states(state, decision.portfolio_id, holdings.cells)
    for index, (strategy, symbol) in enumerate(holdings.cells):
        before, steps = 0, []
        for stage, column, reasons in zip(waterfall.names, waterfall.columns, waterfall.reasons, strict=True):
            after = column[index]
            steps.append(
                {
                    "stage": stage,
                    "before_cents": before,
                    "after_cents": after,
                    "reason": reasons.get(index, ""),
                    "detail": _detail(state, decision, index, stage),
                }
            )
            before = after
        yield {
            "strategy_id": strategy,
            "symbol": symbol,
            "trading_state": words[index],
            "held_cents": holdings.cents[index],
            "target_cents": decision.cents[index],
            "quantity_of_symbol": decision.quantities[symbol],
            "steps": steps,
        }


def _detail(state: State, decision: Decision, index: int, stage: str) -> ExplanationFields:
    """Return the numbers behind a stage's result; empty if it has none."""
    strategy, symbol = decision.holdings.cells[index]
    size, target = decision.sizes[index], decision.targets[index]
    book = decision.book
    common: ExplanationFields = {
        "ensemble": {"weight": decision.strategy_weights.get(strategy)},
        "portfolio": {"penalty": decision.penalties.get(symbol)},
        "caps": {"cap_factor": target.cap_factor},
        "cut": {"cut": target.cut, "value_usd": book.value_usd, "peak_usd": book.peak_usd},
        "band": {"kept": symbol in decision.kept, "held_cents": decision.holdings.cents[index]},
    }
    found = common.get(stage) or ({} if size is None else _of_size(state, size, stage, symbol))
    return {name: value for name, value in found.items() if value is not None}


def _of_size(state: State, size: CellSize, stage: str, symbol: str) -> ExplanationFields:
    """Return the numbers behind stages 1 to 8."""
    if size.bet is None:
        return {}
    market = state.markets.get((symbol,))
    forecast = size.bet.forecast
    latch = None if market is None else (market.long if forecast.side > 0 else market.short)
    found: dict[str, ExplanationFields] = {
        "kelly": {name: value for name, value in size.bet.kelly._asdict().items() if name != "reason"},
        "conformal": {**size.bet.conformal._asdict(), "fraction": size.bet.resized},
        "risk_score": {"multiplier": size.risk_multiplier, "risk_score": forecast.risk_score},
        "sentiment": {} if size.sentiment is None else size.sentiment._asdict(),
        "regime": {"multiplier": size.regime_multiplier},
        "cascade": {
            "multiplier": cascade.MULTIPLIER[size.level],
            "level": RECOMMENDATIONS[size.level],
            "score": None if latch is None else latch.score,
        },
        "drawdown": {"multiplier": size.drawdown_multiplier},
    }
    return found.get(stage, {})
