"""The policy client: one question in, an answer or a reason out, with circuit breaker and deadline.

It awaits only its adapter, so with an in-process adapter it runs without an event loop.
"""

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from engines.models import circuit_breaker
from engines.models.circuit_breaker import Breaker, BreakerParams, Ticket
from schemas.rl import Advice, NoAdvice, NoAdviceReason, RlRequest
from streams.policy.adapters import DISABLED, Adapter, Nobody
from streams.policy.answer import Answer, NoAnswer

logger = logging.getLogger(__name__)

SECOND_NS: Final = 1_000_000_000
DETAIL_MAX: Final = 512


class Outcome(NamedTuple):
    """The result of one question."""

    result: Advice | NoAdvice
    asked: bool
    """Whether the endpoint was called."""
    took_s: float
    """Time from the question to its result, by the breaker's clock."""


BreakerObserver = Callable[[Breaker, Breaker], None]
"""Called with the breaker before and after each change of its status."""


def ignore(_before: Breaker, _after: Breaker) -> None:
    """Ignore the change."""


class PolicyClient:
    """One endpoint with its circuit breaker and timeout.

    `clock`: journal time, ns. `breaker_clock`: any monotonic clock, ns. The breaker's state is local to the client;
    its effects are journaled as answers.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        timeout_s: float,
        params: BreakerParams,
        clock: Callable[[], int],
        breaker_clock: Callable[[], int],
        observe: BreakerObserver = ignore,
    ) -> None:
        self.adapter = adapter
        self.timeout_s, self.params = timeout_s, params
        self.breaker = Breaker()
        self._clock, self._breaker_clock, self._observe = clock, breaker_clock, observe

    async def answer(self, request: RlRequest) -> Outcome:
        """Ask if time is left and the breaker permits it. Every failure except cancellation becomes a reason."""
        began_ns = self._breaker_clock()
        left_s = self._left_s(request)
        if left_s <= 0:
            return self._outcome(request, "late", f"asked {-left_s:.3f} s past the deadline", began_ns)
        if isinstance(self.adapter, Nobody):
            return self._outcome(request, "disabled", DISABLED, began_ns)
        timeout_s = min(self.timeout_s, left_s)
        after, ticket = circuit_breaker.admit(self.breaker, began_ns, self.params, timeout_s)
        self._turn(after)
        if ticket is None:
            return self._outcome(request, "open", "the breaker is open: the endpoint is not called", began_ns)
        try:
            return await self._asked(request, ticket, timeout_s, began_ns)
        except NoAnswer as error:
            return self._outcome(request, error.reason, str(error), began_ns, asked=True)
        except Exception as error:  # noqa: BLE001 an adapter's fault must not stop the worker
            logger.warning("policy adapter failed: %s", type(error).__name__)  # its text may quote what was sent
            return self._outcome(request, "refused", type(error).__name__, began_ns, asked=True)

    async def _asked(self, request: RlRequest, ticket: Ticket, timeout_s: float, began_ns: int) -> Outcome:
        """Ask, and report the result to the breaker, even if cancelled."""
        ok = False
        try:
            found = await self.adapter.ask(request, timeout_s)
            ok = True
        finally:
            self._turn(circuit_breaker.answered(self.breaker, ticket, self._breaker_clock(), self.params, ok=ok))
        past_s = -self._left_s(request)
        if past_s > 0:
            raise NoAnswer("late", f"answered {past_s:.3f} s past the deadline")
        return Outcome(_advice(request, found), asked=True, took_s=self._since(began_ns))

    def _left_s(self, request: RlRequest) -> float:
        return (request.deadline_ns - self._clock()) / SECOND_NS

    def status(self) -> Breaker:
        """Return the breaker's state now."""
        return circuit_breaker.at(self.breaker, self._breaker_clock(), self.params)

    def _turn(self, after: Breaker) -> None:
        before, self.breaker = self.breaker, after
        if before.status != after.status:
            self._observe(before, after)

    def _outcome(
        self, request: RlRequest, reason: NoAdviceReason, detail: str, began_ns: int, *, asked: bool = False
    ) -> Outcome:
        return Outcome(no_advice(request, reason, detail), asked, self._since(began_ns))

    def _since(self, began_ns: int) -> float:
        return (self._breaker_clock() - began_ns) / SECOND_NS


def no_advice(request: RlRequest, reason: NoAdviceReason, detail: str) -> NoAdvice:
    """Return the record of a question without an answer."""
    return NoAdvice(
        decision_id=request.decision_id,
        portfolio_id=request.portfolio_id,
        strategy_id=request.strategy_id,
        symbol=request.symbol,
        reason=reason,
        detail=detail[:DETAIL_MAX],
    )


def _advice(request: RlRequest, answer: Answer) -> Advice:
    return Advice(
        decision_id=request.decision_id,
        portfolio_id=request.portfolio_id,
        strategy_id=request.strategy_id,
        symbol=request.symbol,
        **answer._asdict(),
    )
