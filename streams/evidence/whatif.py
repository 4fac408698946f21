"""What-if: which decisions other settings would change on the same journal, by how much, and what binds instead.

The journal is folded twice in one pass: once as recorded, and once with the other settings from Genesis on, ignoring
recorded settings orders. Everything else is as recorded: signals, prices, outcomes, trading states, equity and
positions. Money is summed in whole cents.
"""

import heapq
from collections.abc import AsyncIterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from engines.fold import apply
from engines.handlers.effects import FoldResult, Journaled
from engines.parameters import DecisionParams, tree_hash
from engines.pipeline import cache
from engines.pipeline.decide import Decision
from engines.state.partition import State
from schemas.errors import VerificationMismatch
from streams.audits.refold import GENESIS, Checkpoint, restored
from streams.evidence.time_buckets import Sums
from streams.journal import entries as journal
from streams.processing.ports import Record

BIGGEST: Final = 10
NEVER_NS: Final = 2**63
NO_DECISION: Final = "no decision"
NOT_HELD: Final = "not held"

ExplanationFields = dict[str, Any]


class Stand(NamedTuple):
    """One symbol's net after a portfolio's last decision, and the rule that bound it."""

    cents: int
    rule: str


HELD: Final = "held at the checkpoint"
UNHELD: Final = Stand(0, NOT_HELD)
Stands = Mapping[str, Stand]


class SymbolChange(NamedTuple):
    """The change of one symbol in one decision."""

    symbol: str
    before_cents: int
    after_cents: int
    rule: str
    instead: str


class Changed(NamedTuple):
    """One changed decision; ordered by size of the change, then by position (earlier ranks higher)."""

    cents: int
    """Sum of absolute changes."""
    earlier: tuple[int, int]
    """(−journal offset, −partition)."""
    decision_id: str
    portfolio_id: str
    timestamp_ns: int
    trigger: str
    changes: tuple[SymbolChange, ...]

    def as_dict(self) -> ExplanationFields:
        """Return plain JSON values."""
        return {
            "decision_id": self.decision_id,
            "portfolio_id": self.portfolio_id,
            "timestamp_ns": self.timestamp_ns,
            "trigger": self.trigger,
            "absolute_change_cents": self.cents,
            "changes": [change._asdict() for change in self.changes],
        }


@dataclass(slots=True)
class WhatIfDifference:
    """The differences of one or more partitions; `join` adds them up."""

    settings_hash: str
    since_ns: int = 0
    until_ns: int = NEVER_NS
    decisions: int = 0
    """Decisions compared: made under either settings."""
    changed: int = 0
    only_before: int = 0
    """Decisions made only under the journal's settings."""
    only_after: int = 0
    """Decisions made only under the other settings."""
    from_positions: int = 0
    """Decisions based on reported positions, which other targets would have changed."""
    refused: int = 0
    """Inputs refused only under the other settings; counts all times and portfolios."""
    by_symbol: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    """(portfolio, symbol) → changed decisions, sum of absolute changes, sum of changes; in cents."""
    by_rule: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """(rule, rule instead) → changes, sum of absolute changes in cents."""
    biggest: list[Changed] = field(default_factory=list)
    """Min-heap of the `BIGGEST` largest changes."""
    sums: Sums = field(default_factory=Sums)

    def take(self, changed: Changed) -> None:
        """Add a changed decision."""
        self.changed += 1
        for change in changed.changes:
            delta = change.after_cents - change.before_cents
            _add(self.by_symbol, (changed.portfolio_id, change.symbol), (1, abs(delta), delta))
            _add(self.by_rule, (change.rule, change.instead), (1, abs(delta)))
        self.push(changed)

    def push(self, changed: Changed) -> None:
        """Keep a decision if it is among the `BIGGEST` largest changes."""
        heapq.heappush(self.biggest, changed)
        if len(self.biggest) > BIGGEST:
            heapq.heappop(self.biggest)

    def join(self, other: "WhatIfDifference") -> None:
        """Add the differences of another partition."""
        for name in ("decisions", "changed", "only_before", "only_after", "from_positions", "refused"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for key, counts in other.by_symbol.items():
            _add(self.by_symbol, key, counts)
        for rules, found in other.by_rule.items():
            _add(self.by_rule, rules, found)
        for changed in other.biggest:
            self.push(changed)
        self.sums.join(other.sums)

    @property
    def cents(self) -> int:
        """Return the sum of all absolute changes."""
        return sum(absolute for _, absolute, _ in self.by_symbol.values())

    def as_dict(self) -> ExplanationFields:
        """Return plain JSON values."""
        return {
            "settings_hash": self.settings_hash,
            "decisions": self.decisions,
            "changed": self.changed,
            "only_journal_settings": self.only_before,
            "only_file_settings": self.only_after,
            "from_positions": self.from_positions,
            "refused": self.refused,
            "absolute_change_cents": self.cents,
            "by_symbol": [
                {
                    "portfolio_id": key[0],
                    "symbol": key[1],
                    "decisions": n,
                    "absolute_change_cents": a,
                    "change_cents": c,
                }
                for key, (n, a, c) in sorted(self.by_symbol.items())
            ],
            "by_rule": [
                {"rule": rule, "instead": instead, "changes": count, "absolute_change_cents": cents}
                for (rule, instead), (count, cents) in sorted(
                    self.by_rule.items(), key=lambda item: (-item[1][1], item)
                )
            ],
            "biggest": [changed.as_dict() for changed in sorted(self.biggest, reverse=True)],
            "over_time": self.sums.as_list(),
        }


def _add(sums: dict[Any, Any], key: tuple[str, str], counts: tuple[int, ...]) -> None:
    known = sums.get(key, (0,) * len(counts))
    sums[key] = tuple(one + other for one, other in zip(known, counts, strict=True))


# -- two folds ---------------------------------------------------------------------------------------------------------
async def whatif(
    partition: int,
    entries: AsyncIterable[Record],
    params: DecisionParams,
    portfolio: str | None = None,
    since_ns: int = 0,
    until_ns: int = NEVER_NS,
    start: Checkpoint = GENESIS,
) -> WhatIfDifference:
    """Return how `params` would have changed the decisions of one journal partition.

    Args:
        partition: journal partition.
        entries: its entries from the beginning, or after `start`.
        params: the other decision settings.
        portfolio: count only this portfolio's decisions; None: all.
        since_ns: count only decisions at or after this journal time.
        until_ns: count only decisions before this journal time.
        start: the state at which the other settings take effect; its holdings are the same under both.

    Raises:
        VerificationMismatch: an entry is missing, or cannot be folded.
    """
    pair = _Pair(partition, params, WhatIfDifference(tree_hash(params), since_ns, until_ns), start)
    expected = start.offset + 1
    async for record in entries:
        if record.offset != expected:
            msg = f"journal {partition}:{expected} is missing, next is offset {record.offset}"
            raise VerificationMismatch(msg)
        try:
            pair.take(journal.read(record.offset, record.value), portfolio)
        except Exception as error:
            msg = f"journal {partition}:{expected} cannot be folded: {type(error).__name__}: {error}"
            raise VerificationMismatch(msg) from error
        expected += 1
    return pair.difference


class _Pair:
    """One journal partition, folded under two settings."""

    def __init__(
        self, partition: int, params: DecisionParams, difference: WhatIfDifference, start: Checkpoint = GENESIS
    ) -> None:
        self.before, self.after = restored(partition, start), restored(partition, start)
        if self.after.progress is not None:
            self.after.use(params)
            self.after.progress.settings, self.after.progress.settings_hash = params.model_dump(), tree_hash(params)
        self.params = params
        self.hash = tree_hash(params)
        self.difference = difference
        self._refused = [False, False]
        held = _held(self.before)
        self._stands: tuple[dict[str, Stands], dict[str, Stands]] = (held, dict(held))

    def take(self, entry: Journaled, portfolio: str | None) -> None:
        """Fold an entry under both settings, and record the differences."""
        folds = (self._fold(self.before, entry, 0), self._fold(self.after, self._replaced(entry), 1))
        self.difference.refused += self._refused[1] and not self._refused[0]
        inside = self.difference.since_ns <= self.before.now_ns < self.difference.until_ns
        for name in sorted({*folds[0], *folds[1]}) if inside else ():
            if portfolio in {None, name}:
                self._compare(entry.offset, name, folds[0].get(name), folds[1].get(name))

    def _replaced(self, entry: Journaled) -> Journaled:
        """Return the entry as if the other settings had been those of Genesis and never changed."""
        body = entry.body
        if entry.kind == "genesis":
            return entry._replace(body={**body, "settings": self.params.model_dump(), "settings_hash": self.hash})
        if entry.kind == "control" and body["kind"] == "settings":
            return entry._replace(body={**body, "payload": {**body["payload"], "hash": self.hash}})
        return entry

    def _fold(self, state: State, entry: Journaled, side: int) -> dict[str, Decision]:
        folded: FoldResult = apply(state, entry)
        self._refused[side] = bool(folded.refusals)
        state.touched.clear()
        decided = {each.decision.portfolio_id: each.decision for each in folded.allocations}
        minimum = cache.limits(state).minimum_cents
        for portfolio, decision in decided.items():
            self._stands[side][portfolio] = stands(decision, minimum)
        return decided

    def _compare(self, offset: int, portfolio: str, before: Decision | None, after: Decision | None) -> None:
        found = self.difference
        found.decisions += 1
        found.only_before += after is None
        found.only_after += before is None
        decided = [decision for decision in (before, after) if decision is not None]
        found.from_positions += decided[0].holdings.basis == "positions"
        stood = [side.get(portfolio, {}) for side in self._stands]
        changes = tuple(_changes(stood[0], stood[1], before is not None, after is not None))
        cents = sum(abs(change.after_cents - change.before_cents) for change in changes)
        held = [sum(abs(stand.cents) for stand in side.values()) for side in stood]
        found.sums.add(self.before.now_ns, portfolio, cents, *held)
        if changes:
            trigger = f"{decided[0].trigger.kind} {decided[0].trigger.id}"
            progress = self.before.progress
            journal_id = "" if progress is None else progress.journal_id
            name = f"{journal_id}-{self.before.partition}-{offset}-{portfolio}"
            place = (-offset, -self.before.partition)
            found.take(Changed(cents, place, name, portfolio, self.before.now_ns, trigger, changes))


def _held(state: State) -> dict[str, Stands]:
    """Return each portfolio's holdings at a checkpoint."""
    nets: dict[str, dict[str, int]] = {}
    for (portfolio, _, symbol), target in state.targets.items():
        own = nets.setdefault(portfolio, {})
        own[symbol] = own.get(symbol, 0) + target.cents
    minimum = cache.limits(state).minimum_cents
    return {
        portfolio: {symbol: Stand(0 if abs(net) < minimum else net, HELD) for symbol, net in own.items()}
        for portfolio, own in nets.items()
    }


def _changes(before: Stands, after: Stands, decided_before: bool, decided_after: bool) -> Iterator[SymbolChange]:  # noqa: FBT001
    for symbol in sorted({*before, *after}):
        here, there = before.get(symbol, UNHELD), after.get(symbol, UNHELD)
        if here.cents != there.cents:
            rule = here.rule if decided_before else NO_DECISION
            instead = there.rule if decided_after else NO_DECISION
            yield SymbolChange(symbol, here.cents, there.cents, rule, instead)


# -- one decision ------------------------------------------------------------------------------------------------------
def stands(decision: Decision, minimum_cents: int) -> Stands:
    """Return each symbol's published net, and the rule that bound it."""
    members: dict[str, list[int]] = {}
    for index, (_, symbol) in enumerate(decision.holdings.cells):
        members.setdefault(symbol, []).append(index)
    found = {}
    for symbol, indexes in members.items():
        net = sum(decision.cents[index] for index in indexes)
        shown = 0 if abs(net) < minimum_cents else net
        found[symbol] = Stand(shown, rule(decision, symbol, indexes))
    return found


def rule(decision: Decision, symbol: str, indexes: list[int]) -> str:
    """Return what bound a symbol: the last stage that changed one of its cells, with its reason if any.

    If no later stage changed a cell, the first stage binds.
    """
    if symbol in decision.kept:
        return "band: kept as held"
    waterfall = decision.waterfall
    for place in range(len(waterfall.names) - 1, 0, -1):
        now, was = waterfall.columns[place], waterfall.columns[place - 1]
        moved = [index for index in indexes if now[index] != was[index]]
        if moved:
            return _named(waterfall.names[place], waterfall.reasons[place], moved)
    return _named(waterfall.names[0], waterfall.reasons[0], indexes)


def _named(stage: str, reasons: Mapping[int, str], indexes: list[int]) -> str:
    """Return a stage with its reasons; reasons that contain digits are left out, so that equal rules group."""
    given = sorted({reasons[index] for index in indexes if reasons.get(index)})
    shown = [reason for reason in given if not any(each.isdigit() for each in reason)]
    return f"{stage}: {', '.join(shown)}" if shown else stage
