"""What the page knows of the topics: newest allocations, last decisions, alerts, dead letters and orders.

Pure: records go in, nothing is read and no clock is asked. All collections are bounded.
"""

import hashlib
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import orjson

from config.diff import diff
from schemas.dead_letter import read as error_headers
from streams.page.chain import AllocationChain
from streams.processing.ports import Headers

DECISIONS_MAX: Final = 50
ALERTS_MAX: Final = 200
LETTERS_MAX: Final = 200
ORDERS_MAX: Final = 100
PORTFOLIOS_MAX: Final = 2_000
SYMBOLS_MAX: Final = 1_000
STANDING_MAX: Final = 1_000
DIFFERENCES_MAX: Final = 50
BULKY: Final = ("waterfall", "portfolio_waterfall", "diagnostics", "allocations")
"""Fields that only the detail of a decision shows; it decodes the published bytes again."""
STANDING: Final = frozenset({"cascade", "breaker", "rl_gate"})
"""Kinds of alerts that describe a state: the newest of a subject replaces the one before."""

Fields = Mapping[str, Any]


class ShownDecision(NamedTuple):
    """One allocation as published, and whether it follows the one before it."""

    timestamp_ns: int
    partition: int
    offset: int
    decision_id: str
    fields: Fields
    """Without the bulky ones."""
    value: bytes
    linked: bool | None
    """None: the allocation before it was not read."""


class ShownPortfolio:
    """The newest allocation of a portfolio, and the targets of the one before it."""

    __slots__ = ("before", "chain", "newest", "weighed")

    def __init__(self) -> None:
        self.chain = AllocationChain()
        self.newest: ShownDecision | None = None
        self.before: Fields | None = None
        """Targets of the allocation before the newest; None if it was not read."""
        self.weighed: Fields | None = None
        """The newest allocation that weighed the strategies; one that only scales, as after a halt, does not."""


class SymbolSeen(NamedTuple):
    """What the newest decision about a symbol says of its market."""

    timestamp_ns: int
    side: int
    score: float
    recommendation: str
    regime: str
    portfolio_id: str
    price: float | None


class PageModel:
    """Folds records of `allocations`, `alerts`, `control` and the dead-letter topics."""

    def __init__(self) -> None:
        self.portfolios: dict[str, ShownPortfolio] = {}
        self.left_out = 0
        """Allocations of portfolios beyond `PORTFOLIOS_MAX`."""
        self.unreadable = 0
        """Records of `allocations` and `alerts` that are not what they should be."""
        self.decisions: list[ShownDecision] = []
        """By time, oldest first."""
        self.symbols: OrderedDict[str, SymbolSeen] = OrderedDict()
        self.alerts: deque[Fields] = deque(maxlen=ALERTS_MAX)
        self.standing: OrderedDict[tuple[str, str], Fields] = OrderedDict()
        self.letters: OrderedDict[tuple[str, int, int], Fields] = OrderedDict()
        """By place: topic, partition, offset."""
        self.orders: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._alert_ids: OrderedDict[str, None] = OrderedDict()
        self._tree: Mapping[str, Any] | None = None
        """Decision settings of the last settings order."""
        self.changes = 0
        """How many records have changed the model."""

    # -- allocations -------------------------------------------------------------------------------------------------
    def take_allocation(self, value: bytes, partition: int, offset: int, *, skipped: bool = False) -> None:
        """Take a record of `allocations`. `skipped`: others of its portfolio before it were not read."""
        try:
            fields = orjson.loads(value)
            portfolio, sequence = str(fields["portfolio_id"]), int(fields["sequence"])
            previous, timestamp_ns = str(fields["previous_hash"]), int(fields["timestamp_ns"])
            decision_id, targets = str(fields["decision_id"]), dict(fields["targets"])
        except (KeyError, TypeError, ValueError):
            self.unreadable += 1
            return
        self.changes += 1
        known = self.portfolios.get(portfolio)
        if known is None:
            if len(self.portfolios) >= PORTFOLIOS_MAX:
                self.left_out += 1
                return
            known = self.portfolios[portfolio] = ShownPortfolio()
        follows = known.chain.last == sequence - 1 and known.newest is not None
        if not known.chain.take(sequence, previous, hashlib.sha256(value).hexdigest(), skipped=skipped):
            return
        broken = known.chain.word == "fork" and known.chain.since == sequence
        linked = not broken if follows else True if sequence == 1 and not previous else None
        kept = {name: each for name, each in fields.items() if name not in BULKY}
        made = ShownDecision(timestamp_ns, partition, offset, decision_id, kept, value, linked)
        known.before = known.newest.fields["targets"] if follows and known.newest is not None else _nothing(sequence)
        known.newest = made
        known.weighed = kept if kept.get("strategy_weights") else known.weighed
        insort(self.decisions, made, key=lambda each: (each.timestamp_ns, each.partition, each.offset))
        del self.decisions[:-DECISIONS_MAX]
        self._see_symbol(fields, targets, timestamp_ns)

    def take_older(self, records: Iterable[tuple[bytes, int, int]]) -> None:
        """Take a span of `allocations` from before the span that was read first: (value, partition, offset).

        Only portfolios without a newer allocation count.
        """
        known = frozenset(self.portfolios)
        for value, partition, offset in records:
            if _portfolio_of(value) not in known:
                self.take_allocation(value, partition, offset)

    def decision(self, decision_id: str) -> ShownDecision | None:
        """Return a decision by its id, if it is among the last ones or the newest of its portfolio."""
        for each in reversed(self.decisions):
            if each.decision_id == decision_id:
                return each
        newest = (known.newest for known in self.portfolios.values())
        return next((each for each in newest if each is not None and each.decision_id == decision_id), None)

    def _see_symbol(self, fields: Fields, targets: Fields, timestamp_ns: int) -> None:
        symbol = fields.get("symbol")
        if symbol is None or fields.get("cascade_recommendation") is None:
            return
        diagnostics = fields.get("diagnostics") or {}
        price = diagnostics.get("price") or _price(targets.get(symbol))
        seen = SymbolSeen(
            timestamp_ns,
            int(diagnostics.get("side") or 0),
            float(fields.get("cascade_risk_score") or 0.0),
            str(fields["cascade_recommendation"]),
            str(fields.get("current_regime") or ""),
            str(fields["portfolio_id"]),
            price,
        )
        before = self.symbols.get(symbol)
        if before is None or before.timestamp_ns <= timestamp_ns:
            _put(self.symbols, symbol, seen, SYMBOLS_MAX)

    # -- alerts, dead letters, orders ----------------------------------------------------------------------------------
    def take_alert(self, value: bytes) -> None:
        """Take a record of `alerts`; a repeat is dropped."""
        try:
            fields = orjson.loads(value)
            alert_id, kind, subject = str(fields["alert_id"]), str(fields["kind"]), str(fields["subject"])
            int(fields["timestamp_ns"])
        except (KeyError, TypeError, ValueError):
            self.unreadable += 1
            return
        if alert_id in self._alert_ids:
            return
        _put(self._alert_ids, alert_id, None, 4 * ALERTS_MAX)
        self.changes += 1
        if kind == "control_applied":
            self._answered(subject, fields)
            return
        if kind in STANDING:
            _put(self.standing, (kind, subject), fields, STANDING_MAX)
        self.alerts.append(fields)

    def take_letter(self, topic: str, partition: int, offset: int, timestamp_ms: int, headers: Headers) -> None:
        """Take a dead letter of a source topic (logical name): its place and reason, never its content."""
        why = error_headers(headers)
        self.changes += 1
        letter = {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "time_ms": timestamp_ms,
            "code": None if why is None else why.code,
            "field": "" if why is None else why.field,
            "message": "" if why is None else why.message[:500],
            "source": None if why is None else f"{why.topic}/{why.partition}/{why.offset}",
        }
        _put(self.letters, (topic, partition, offset), letter, LETTERS_MAX)

    def take_order(self, value: bytes) -> None:
        """Take a record of `control`; an invalid one is a dead letter, and no order."""
        try:
            fields = orjson.loads(value)
            control_id, kind, payload = str(fields["control_id"]), str(fields["kind"]), dict(fields["payload"])
            ordered_ms = int(fields["timestamp_ns"]) // 1_000_000
            texts = {name: str(fields[name]) for name in ("by", "reason")}
        except (KeyError, TypeError, ValueError):
            return
        order = self._order(control_id)
        if order["kind"] is not None:
            return
        self.changes += 1
        order |= {"kind": kind, **texts, "ordered_ms": ordered_ms}
        order["what"] = {name: each for name, each in payload.items() if name != "tree"}
        tree = payload.get("tree")
        if kind == "settings" and isinstance(tree, dict):
            order["differences"] = _differences(self._tree, tree)
            self._tree = tree

    def _answered(self, control_id: str, fields: Fields) -> None:
        order = self._order(control_id)
        partition = (fields.get("journal") or {}).get("partition")
        order["answers"]["?" if partition is None else str(partition)] = str(fields.get("result"))
        order["answered_ms"] = fields["timestamp_ns"] // 1_000_000

    def _order(self, control_id: str) -> dict[str, Any]:
        found = self.orders.get(control_id)
        if found is None:
            empty = dict.fromkeys(("kind", "by", "reason", "what", "ordered_ms", "answered_ms", "differences"))
            found = {"control_id": control_id, **empty, "answers": {}}
            _put(self.orders, control_id, found, ORDERS_MAX)
        return found


def _put(table: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Store a value as the newest; drop the oldest beyond `most`."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)


def _nothing(sequence: int) -> Fields | None:
    """Return the targets before an allocation that was not preceded by one here: none before the first."""
    return {} if sequence == 1 else None


def _portfolio_of(value: bytes) -> str | None:
    try:
        return str(orjson.loads(value)["portfolio_id"])
    except (KeyError, TypeError, ValueError):
        return None


def _price(target: Fields | None) -> float | None:
    """Return the price that a target was computed with, None where it holds nothing."""
    if not target or not target.get("quantity") or target.get("notional_usd") is None:
        return None
    return float(target["notional_usd"]) / float(target["quantity"])


def _differences(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[list[Any]] | None:
    """Return [key, before, after] of each setting that an order changes; None if the settings before are not known."""
    if before is None:
        return None
    return [[key, str(was)[:200], str(now)[:200]] for key, was, now in diff(before, after)[:DIFFERENCES_MAX]]
