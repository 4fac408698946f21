"""Operator orders and reports of positions for the library classes: the same journal entries as the worker's."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from schemas import wire
from schemas.control import Control
from schemas.positions import Positions
from schemas.rules import TIMESTAMP_MIN_NS
from streams.library.decisions import PositionSizingDecision
from streams.stages.control import trading_order, value_order

__all__ = ["Orders"]


class Orders(ABC):
    """What an operator orders and an execution engine reports, through the library.

    Each method returns the allocations that it leads to, oldest first: none where nothing is held in its scope.
    `timestamp_ns` is the time of the order, ns since 1970 UTC; without it, the time of the newest input.
    """

    def set_portfolio_value(
        self,
        value_usd: float,
        portfolio_id: str = "main",
        *,
        reset_peak: bool = False,
        reason: str = "library",
        by: str = "library",
        timestamp_ns: int | None = None,
    ) -> list[PositionSizingDecision]:
        """Set a portfolio's equity in USD; its drawdown follows, and with it what may be held.

        Args:
            value_usd: equity, USD.
            portfolio_id: the portfolio.
            reset_peak: also set the equity peak, so that the drawdown becomes 0.
            reason: why, for the journal.
            by: who orders it.
            timestamp_ns: see the class.

        Raises:
            InvalidControlException: place, rule and value.
        """
        payload = {"portfolio_id": portfolio_id, "value_usd": value_usd, "reset_peak": reset_peak}
        return self._order(value_order(payload, reason, by, *self._place("value", timestamp_ns)))

    def set_positions(
        self,
        quantities: Mapping[str, float],
        portfolio_id: str = "main",
        *,
        equity: float | None = None,
        as_of_sequence: int | None = None,
        timestamp_ns: int | None = None,
    ) -> list[PositionSizingDecision]:
        """Report what a portfolio holds: every position, signed, in coins or contracts.

        A report moves no target by itself. It calls for a decision if it changes the equity or holds a symbol that is
        not managed.

        Args:
            quantities: by symbol; a symbol that is not named is not held.
            portfolio_id: the portfolio.
            equity: value of the portfolio, USD; None: unchanged.
            as_of_sequence: sequence of the last allocation that had been applied.
            timestamp_ns: see the class; a report that is not newer than the last one has no effect.

        Raises:
            InvalidPositionsException: place, rule and value.
            SizingError: `as_of_sequence` names an allocation that was never published.
        """
        now_ns = self._time(timestamp_ns)
        report = {
            "portfolio_id": portfolio_id,
            "timestamp_ns": now_ns,
            "quantities": dict(quantities),
            "equity": equity,
            "as_of_sequence": as_of_sequence,
        }
        given = {name: value for name, value in report.items() if value is not None}
        message = wire.validate(Positions, given, place="positions")
        return self._decisions("positions", message.model_dump(exclude_none=True), now_ns)

    def halt(
        self, scope: str = "all", *, reason: str = "library", by: str = "library", timestamp_ns: int | None = None
    ) -> list[PositionSizingDecision]:
        """Set the targets of a scope to 0 and open nothing until it is resumed.

        Args:
            scope: all, portfolio:P, strategy:S or symbol:X.
            reason: why, for the journal.
            by: who orders it.
            timestamp_ns: see the class.

        Raises:
            InvalidControlException: place, rule and value.
        """
        return self._trading("halt", scope, reason, by, timestamp_ns)

    def reduce(
        self, scope: str = "all", *, reason: str = "library", by: str = "library", timestamp_ns: int | None = None
    ) -> list[PositionSizingDecision]:
        """Let positions of a scope only become smaller until it is resumed. Arguments and errors as of `halt`."""
        return self._trading("reduce", scope, reason, by, timestamp_ns)

    def resume(
        self,
        scope: str = "all",
        *,
        everything: bool = False,
        reason: str = "library",
        by: str = "library",
        timestamp_ns: int | None = None,
    ) -> list[PositionSizingDecision]:
        """End a halt or reduction of exactly this scope; with `everything`, which needs `all`, of all scopes.

        Arguments and errors as of `halt`.
        """
        return self._trading("resume", scope, reason, by, timestamp_ns, everything=everything)

    @abstractmethod
    def _decisions(self, kind: str, body: dict[str, Any], now_ns: int) -> list[PositionSizingDecision]:
        """Feed an entry; return the allocations that it leads to."""

    @abstractmethod
    def _clock(self) -> tuple[int, int]:
        """Return the time of the newest input, 0 before the first, and the offset of the next entry."""

    def _trading(
        self, word: str, scope: str, reason: str, by: str, timestamp_ns: int | None, *, everything: bool = False
    ) -> list[PositionSizingDecision]:
        place = self._place(word, timestamp_ns)
        return self._order(trading_order(word, scope, reason, by, *place, everything=everything))

    def _order(self, order: dict[str, Any]) -> list[PositionSizingDecision]:
        wire.validate(Control, order, place="control")
        return self._decisions("control", order, order["timestamp_ns"])

    def _place(self, word: str, timestamp_ns: int | None) -> tuple[int, str]:
        """Return an order's time and id; the id is the same in every run of the same inputs."""
        return self._time(timestamp_ns), f"{word}-{self._clock()[1]}"

    def _time(self, timestamp_ns: int | None) -> int:
        return max(self._clock()[0], TIMESTAMP_MIN_NS) if timestamp_ns is None else timestamp_ns
