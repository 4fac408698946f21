"""What the demo has seen: the board for the eyes, and the numbers of the summary."""

import time
from typing import Any

import orjson

from engines.effects import Folded, Journaled, Look
from schemas.words import RECOMMENDATIONS
from streams.clock import SECOND_NS
from streams.demo.board import Board
from streams.history.feed import Event
from streams.reader import AllocationReader


class Hours:
    """Cascade levels for longs, candle by candle, as the audit computes them again."""

    def __init__(self, width_s: int) -> None:
        self.width_s = width_s
        self.seen = 0
        self.above: list[dict[str, Any]] = []

    def observe(self, entry: Journaled, folded: Folded, _elapsed_ns: int) -> None:
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


def _told(look: Look, time_ns: int) -> dict[str, Any]:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // SECOND_NS))
    return {
        "symbol": look.symbol,
        "time": moment,
        "level": RECOMMENDATIONS[look.level],
        "score": round(look.score, 4),
    }


class Tally:
    """What the demo has seen: the board for the eyes, and the numbers of the summary."""

    def __init__(self, board: Board) -> None:
        self.board = board
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

    def sent(self, event: Event, at: float | None) -> None:
        """Take note of a record that is sent; `at`: when, where latency is measured."""
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
