"""What the demo has seen: the board for the eyes, and the numbers of the summary."""

import time
from collections import Counter
from collections.abc import Mapping
from datetime import date
from statistics import fmean
from typing import Any

import orjson

from engines.handlers.effects import CascadeReading, FoldResult, Journaled
from schemas.vocabulary import RECOMMENDATIONS
from streams.demo.correlation_tracker import Heat
from streams.demo.dashboard import Board
from streams.history.feed import FeedEvent
from streams.processing.clock import SECOND_NS
from streams.reports.allocation_reader import AllocationReader


class CascadeHours:
    """Cascade levels for longs, candle by candle, as the audit computes them again."""

    def __init__(self, width_s: int) -> None:
        self.width_s = width_s
        self.seen = 0
        self.above: list[dict[str, Any]] = []

    def observe(self, entry: Journaled, folded: FoldResult, _elapsed_ns: int) -> None:
        """Take what a step led to."""
        if entry.kind != "step":
            return
        opened_ns = ((entry.body["step"] + 1) * entry.body["step_s"] - self.width_s) * SECOND_NS
        for look in folded.looks:
            if look.side > 0:
                self.seen += 1
                if look.level:
                    self.above.append(_told(look, opened_ns))

    def report(self) -> dict[str, Any]:
        """Return the share of candles above MONITOR, and each of them by the time it opened."""
        ratio = round(len(self.above) / self.seen, 4) if self.seen else None
        return {"hours_above_monitor_ratio": ratio, "levels": self.above}

    def worst_day(self) -> date | None:
        """Return the UTC day of the highest score above MONITOR; None where there is none."""
        worst = max(self.above, key=lambda each: float(each["score"]), default=None)
        return None if worst is None else date.fromisoformat(worst["time"][:10])


class PolicyAnswers:
    """What became of the questions to the policy, as the audit computes it again."""

    def __init__(self) -> None:
        self.asked = 0
        self.statuses: Counter[str] = Counter()

    def observe(self, _entry: Journaled, folded: FoldResult, _elapsed_ns: int) -> None:
        """Take what an entry led to."""
        self.asked += len(folded.requests)
        self.statuses.update(note.label for note in folded.notes if note.name == "advice")

    def report(self, board: Board) -> dict[str, Any] | None:
        """Return the summary's `policy`, None where nobody was asked."""
        if not self.asked:
            return None
        policy = board.policy
        return {
            "asked": self.asked,
            "answers": dict(sorted(self.statuses.items())),
            "breaker": board.breaker or "closed",
            "mode": None if policy is None else policy.mode,
            "gate": None if policy is None else policy.gate,
            "scored": 0 if policy is None else policy.decisions,
            "advantage": None if policy is None else policy.advantage,
        }


def _told(look: CascadeReading, time_ns: int) -> dict[str, Any]:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // SECOND_NS))
    return {
        "symbol": look.symbol,
        "time": moment,
        "level": RECOMMENDATIONS[look.level],
        "score": round(look.score, 4),
    }


class Whole:
    """What the allocations say of portfolios as a whole."""

    def __init__(self) -> None:
        self.strategies: set[str] = set()
        self.largest_gross = 0.0
        self.largest_penalty = 0.0
        self.levels: Counter[str] = Counter()
        """Allocations in which a cap of this level bound."""
        self.caps: Counter[str] = Counter()
        """Allocations in which this cap bound, as level:name."""
        self.ratios: list[float] = []
        """Diversification ratio of each allocation that holds two symbols or more."""

    def take(self, fields: Mapping[str, Any]) -> None:
        """Take an allocation's fields."""
        spoke = fields.get("strategy_id")
        self.strategies |= {*fields["strategy_weights"], *([spoke] if spoke else [])}
        self.largest_gross = max(self.largest_gross, fields["totals"]["utilization_ratio"])
        self.largest_penalty = max(self.largest_penalty, *fields["correlation_penalties"].values(), 0.0)
        bound = set(fields["bound"])
        self.caps.update(bound)
        self.levels.update({cap.partition(":")[0] for cap in bound})
        if fields["diversification"] is not None and len(fields["targets"]) > 1:
            self.ratios.append(fields["diversification"]["ratio"])

    def report(self) -> dict[str, Any]:
        """Return the summary's `portfolio`; ratios are of the value, but the penalty, which is of a symbol's size."""
        most = min(self.caps, key=lambda cap: (-self.caps[cap], cap), default=None)
        return {
            "strategies": sorted(self.strategies),
            "largest_gross_ratio": round(self.largest_gross, 6),
            "bound": dict(sorted(self.levels.items())),
            "most_often": most,
            "largest_penalty": round(self.largest_penalty, 6),
            "mean_diversification": round(fmean(self.ratios), 4) if self.ratios else None,
        }


class DemoStatistics:
    """What the demo has seen: the board for the eyes, and the numbers of the summary."""

    def __init__(self, board: Board, heat: Heat) -> None:
        self.board = board
        self.heat = heat
        self.portfolio = Whole()
        self.reader = AllocationReader()
        self.sent_at: dict[str, float] = {}
        self.latencies_ms: list[float] = []
        self.answered: set[str] = set()
        self.signals = 0
        self.dead_letters = 0
        self.sequence_gaps = 0
        self.symbols: dict[str, None] = {}
        self.portfolios: dict[str, int] = {}
        self.first_at: float | None = None

    def sent(self, event: FeedEvent, at: float | None) -> None:
        """Take note of a record that is sent; `at`: when, where latency is measured."""
        self.heat.sent(event)
        if event.topic != "signals":
            return
        fields = orjson.loads(event.value)
        self.signals += 1
        self.board.signals = self.signals
        self.symbols[fields["symbol"]] = None
        if at is not None:
            self.sent_at[fields["signal_id"]] = at

    def took(self, topic: str, value: bytes) -> None:
        """Take a record of an output topic."""
        if topic == "alerts":
            self.board.alert(orjson.loads(value))
        elif topic == "allocations":
            self._allocation(value)
        else:
            self.dead_letters += 1
            self.board.dead_letters = self.dead_letters

    def _allocation(self, value: bytes) -> None:
        now = time.monotonic()
        taken = self.reader.take(value)
        if taken is None:
            return
        self.first_at = self.first_at or now
        fields = taken.fields
        expected = self.portfolios.get(fields["portfolio_id"], 0) + 1
        self.sequence_gaps += fields["sequence"] != expected
        self.portfolios[fields["portfolio_id"]] = fields["sequence"]
        self.board.take(fields)
        self.portfolio.take(fields)
        if fields["trigger"]["kind"] == "signal":
            self.answered.add(fields["trigger"]["id"])
            sent_at = self.sent_at.pop(fields["trigger"]["id"], None)
            if sent_at is not None:
                self.latencies_ms.append((now - sent_at) * 1e3)

    def latency_ms(self) -> dict[str, float | None]:
        """Return the median and the 99th percentile from a signal sent to its allocation read."""
        ordered = sorted(self.latencies_ms)
        return {"p50": _quantile(ordered, 0.5), "p99": _quantile(ordered, 0.99)}


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None
