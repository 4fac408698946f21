"""The demo's statistics: they update the dashboard and give the numbers of the summary."""

import time
from collections import Counter
from collections.abc import Mapping
from datetime import date
from statistics import fmean
from typing import Any

import orjson

from engines.handlers.effects import CascadeReading, FoldResult, Journaled
from schemas.vocabulary import RECOMMENDATIONS
from streams.demo.correlation_tracker import CorrelationTracker
from streams.demo.dashboard import Dashboard
from streams.history.feed import FeedEvent
from streams.processing.clock import SECOND_NS
from streams.reports.allocation_reader import AllocationReader


class CascadeHours:
    """Cascade levels for longs, candle by candle, collected while the audit replays the journal."""

    def __init__(self, width_s: int) -> None:
        self.width_s = width_s
        self.seen = 0
        self.above: list[dict[str, Any]] = []

    def observe(self, entry: Journaled, folded: FoldResult, _elapsed_ns: int) -> None:
        """Collect the cascade readings of a step."""
        if entry.kind != "step":
            return
        opened_ns = ((entry.body["step"] + 1) * entry.body["step_s"] - self.width_s) * SECOND_NS
        for look in folded.looks:
            if look.side > 0:
                self.seen += 1
                if look.level:
                    self.above.append(_as_dict(look, opened_ns))

    def report(self) -> dict[str, Any]:
        """Return the share of candles above MONITOR, and those candles with their opening time."""
        ratio = round(len(self.above) / self.seen, 4) if self.seen else None
        return {"hours_above_monitor_ratio": ratio, "levels": self.above}

    def worst_day(self) -> date | None:
        """Return the UTC day of the highest score above MONITOR; None without one."""
        worst = max(self.above, key=lambda each: float(each["score"]), default=None)
        return None if worst is None else date.fromisoformat(worst["time"][:10])


class PolicyAnswers:
    """Results of the questions to the policy, collected while the audit replays the journal."""

    def __init__(self) -> None:
        self.asked = 0
        self.statuses: Counter[str] = Counter()

    def observe(self, _entry: Journaled, folded: FoldResult, _elapsed_ns: int) -> None:
        """Count the questions and answers of an entry."""
        self.asked += len(folded.requests)
        self.statuses.update(note.label for note in folded.notes if note.name == "advice")

    def report(self, dashboard: Dashboard) -> dict[str, Any] | None:
        """Return the summary's `policy`; None if no policy was asked."""
        if not self.asked:
            return None
        policy = dashboard.policy
        return {
            "asked": self.asked,
            "answers": dict(sorted(self.statuses.items())),
            "breaker": dashboard.breaker or "closed",
            "mode": None if policy is None else policy.mode,
            "gate": None if policy is None else policy.gate,
            "scored": 0 if policy is None else policy.decisions,
            "advantage": None if policy is None else policy.advantage,
        }


def _as_dict(look: CascadeReading, time_ns: int) -> dict[str, Any]:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // SECOND_NS))
    return {
        "symbol": look.symbol,
        "time": moment,
        "level": RECOMMENDATIONS[look.level],
        "score": round(look.score, 4),
    }


class PortfolioStatistics:
    """Portfolio-level figures over all allocations."""

    def __init__(self) -> None:
        self.strategies: set[str] = set()
        self.largest_gross = 0.0
        self.largest_penalty = 0.0
        self.levels: Counter[str] = Counter()
        """Allocations limited by a cap of this level."""
        self.caps: Counter[str] = Counter()
        """Allocations limited by this cap, as level:name."""
        self.ratios: list[float] = []
        """Diversification ratio of each allocation with two or more symbols."""

    def take(self, fields: Mapping[str, Any]) -> None:
        """Add an allocation's fields."""
        signalling = fields.get("strategy_id")
        self.strategies |= {*fields["strategy_weights"], *([signalling] if signalling else [])}
        self.largest_gross = max(self.largest_gross, fields["totals"]["utilization_ratio"])
        self.largest_penalty = max(self.largest_penalty, *fields["correlation_penalties"].values(), 0.0)
        bound = set(fields["bound"])
        self.caps.update(bound)
        self.levels.update({cap.partition(":")[0] for cap in bound})
        if fields["diversification"] is not None and len(fields["targets"]) > 1:
            self.ratios.append(fields["diversification"]["ratio"])

    def report(self) -> dict[str, Any]:
        """Return the summary's `portfolio`. Ratios are of portfolio value; the penalty is of a symbol's size."""
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
    """Counts and latencies of the demo; updates the dashboard with every record."""

    def __init__(self, dashboard: Dashboard, correlations: CorrelationTracker) -> None:
        self.dashboard = dashboard
        self.correlations = correlations
        self.portfolio = PortfolioStatistics()
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
        """Count a record that is sent; `at` is its monotonic send time in s if its latency is to be measured."""
        self.correlations.sent(event)
        if event.topic != "signals":
            return
        fields = orjson.loads(event.value)
        self.signals += 1
        self.dashboard.signals = self.signals
        self.symbols[fields["symbol"]] = None
        if at is not None:
            self.sent_at[fields["signal_id"]] = at

    def took(self, topic: str, value: bytes) -> None:
        """Count a record read from an output topic."""
        if topic == "alerts":
            self.dashboard.alert(orjson.loads(value))
        elif topic == "allocations":
            self._allocation(value)
        else:
            self.dead_letters += 1
            self.dashboard.dead_letters = self.dead_letters

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
        self.dashboard.take(fields)
        self.portfolio.take(fields)
        if fields["trigger"]["kind"] == "signal":
            self.answered.add(fields["trigger"]["id"])
            sent_at = self.sent_at.pop(fields["trigger"]["id"], None)
            if sent_at is not None:
                self.latencies_ms.append((now - sent_at) * 1e3)

    def latency_ms(self) -> dict[str, float | int | None]:
        """Return median, 99th percentile and count of the ms from sending a signal to reading its allocation."""
        ordered = sorted(self.latencies_ms)
        return {"p50": _quantile(ordered, 0.5), "p99": _quantile(ordered, 0.99), "count": len(ordered)}


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None
