"""Claims that the paper execution engine has acted on, until their outcome is known."""

import heapq
from typing import Any

from schemas.signal import TacticalSignal

SECOND_NS = 1_000_000_000


class Claims:
    """Open claims, until their horizon is over."""

    def __init__(self, prices: dict[str, float]) -> None:
        self.prices = prices
        self.horizons: dict[str, float] = {}
        self.acted: dict[str, dict[str, Any]] = {}
        self.pending: list[tuple[float, str, dict[str, Any]]] = []

    def signal(self, signal: TacticalSignal) -> None:
        """Record a signal's horizon."""
        if signal.signal_id is not None:
            self.horizons[signal.signal_id] = signal.horizon_s
            self._schedule(signal.signal_id)

    def take(self, allocation: dict[str, Any]) -> None:
        """Record the claim of a signal's allocation, if it has a position and a price."""
        trigger = allocation["trigger"]
        if trigger["kind"] == "signal" and allocation.get("position_size_usd") and allocation["symbol"] in self.prices:
            self.acted[trigger["id"]] = allocation
            self._schedule(trigger["id"])

    def _schedule(self, name: str) -> None:
        if name in self.horizons and name in self.acted:
            allocation = self.acted.pop(name)
            due_s = allocation["timestamp_ns"] / SECOND_NS + self.horizons.pop(name)
            heapq.heappush(self.pending, (due_s, name, allocation))

    def due(self, now_ns: int) -> list[dict[str, Any]]:
        """Return the outcomes of the claims whose horizon is over."""
        found = []
        while self.pending and self.pending[0][0] <= now_ns / SECOND_NS:
            _, name, allocation = heapq.heappop(self.pending)
            found.append(self._outcome(name, allocation, now_ns))
        return found

    def _outcome(self, name: str, allocation: dict[str, Any], now_ns: int) -> dict[str, Any]:
        same = {field: allocation[field] for field in ("portfolio_id", "strategy_id", "symbol", "decision_id")}
        diagnostics = allocation["diagnostics"]
        held_s = (now_ns - allocation["timestamp_ns"]) / SECOND_NS
        realised = self.prices[allocation["symbol"]] / diagnostics["price"] - 1.0
        return {
            **same,
            "signal_id": name,
            "side": diagnostics["side"],
            "realized_return": realised,
            "holding_s": held_s,
            "timestamp_ns": now_ns,
        }
