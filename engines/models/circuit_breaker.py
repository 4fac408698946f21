"""Circuit breaker: stops calling a failing endpoint for a while, then tries it with a single probe.

Time is an argument (ns of any monotonic clock); the rules are a table of status and event. A ticket belongs to the
generation in which it was issued: an answer from before a trip has no effect after it.

    >>> breaker, params = Breaker(), BreakerParams()
    >>> for second in range(5):
    ...     breaker, ticket = admit(breaker, second * SECOND_NS, params)
    ...     breaker = answered(breaker, ticket, second * SECOND_NS, params, ok=False)
    >>> breaker.status, retry_at_ns(breaker) // SECOND_NS
    ('open', 34)

Source: docs/methods.md, section 11; Nygard 2007 (stability patterns); AWS Builders' Library (back-off with jitter).
"""

from collections.abc import Callable
from typing import Annotated, Final, Literal, NamedTuple, Self

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field, model_validator

from schemas.base import Frozen

__all__ = ["Breaker", "BreakerParams", "Ticket", "admit", "answered", "at", "retry_at_ns"]

SECOND_NS: Final = 1_000_000_000
BreakerStatus = Literal["closed", "half_open", "open"]
Mode = Literal["automatic", "force_open", "force_closed", "metrics_only"]
BreakerSeconds = Annotated[float, Gt(0), Le(86_400)]


class BreakerParams(Frozen):
    """When a failing endpoint is no longer called, and for how long."""

    enabled: bool = Field(default=True, description="false: failures are counted, but calls are never blocked")
    mode: Mode = Field(
        "automatic", description="force_open: block all calls; force_closed: allow all; metrics_only: count only"
    )
    failure_threshold: Annotated[int, Ge(1), Le(10_000)] = Field(5, description="failures that open the breaker")
    failure_window_sec: BreakerSeconds = Field(60.0, description="window in which failures are counted, seconds")
    initial_timeout_sec: BreakerSeconds = Field(30.0, description="time that it stays open at first, seconds")
    backoff_multiplier: Annotated[float, Ge(1), Le(10)] = Field(
        2.0, description="factor of that time after each failed probe"
    )
    max_timeout_sec: BreakerSeconds = Field(300.0, description="longest time that it stays open, seconds")
    probe_timeout_sec: BreakerSeconds = Field(
        10.0, description="a probe without an answer fails after this time, seconds"
    )
    jitter_ratio: Annotated[float, Ge(0), Lt(1)] = Field(
        0.0, description="largest share by which the open time is shortened"
    )
    jitter_seed: Annotated[int, Ge(0), Le(2**31 - 1)] = Field(0, description="seed of that share")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.initial_timeout_sec > self.max_timeout_sec:
            msg = f"initial_timeout_sec {self.initial_timeout_sec} is above max_timeout_sec {self.max_timeout_sec}"
            raise ValueError(msg)
        return self


class Breaker(NamedTuple):
    """State of a breaker; the defaults are those of a new one."""

    status: BreakerStatus = "closed"
    failures_ns: tuple[int, ...] = ()
    """Times of the failures in the window."""
    generation: int = 0
    """Increases at every change of status."""
    until_ns: int = 0
    """Open: end of the open time; half-open: deadline of the probe."""
    trips: int = 0
    """Number of consecutive trips, which determines the open time."""
    probing: bool = False
    """Half-open: whether the probe is in flight."""
    timeout_s: float = 0.0
    """Current open time, or the last one."""


class Ticket(NamedTuple):
    """Permission for one call."""

    generation: int
    probe: bool


BreakerEvent = Literal["asked", "success", "failure", "time"]
Rule = Callable[[Breaker, int, BreakerParams], Breaker]


def admit(
    breaker: Breaker, now_ns: int, params: BreakerParams, patience_s: float = 0.0
) -> tuple[Breaker, Ticket | None]:
    """Return a ticket for one call, or None if calls are blocked.

    While half-open, only the first caller gets a ticket. If the mode allows all calls, the first one still is the
    probe, so that the reported status moves on.

    Args:
        breaker: state before.
        now_ns: time of the call.
        params: the thresholds.
        patience_s: timeout of the caller; a probe is not failed before it.
    """
    now = at(breaker, now_ns, params)
    if params.mode == "force_open":
        return now, None
    if now.status == "half_open" and not now.probing:
        after = TABLE["half_open", "asked"](now, now_ns, params)
        until_ns = max(after.until_ns, now_ns + int(patience_s * SECOND_NS))
        return after._replace(until_ns=until_ns), Ticket(after.generation, probe=True)
    free = not params.enabled or params.mode in {"force_closed", "metrics_only"}
    return now, Ticket(now.generation, probe=False) if free or now.status == "closed" else None


def answered(breaker: Breaker, ticket: Ticket, now_ns: int, params: BreakerParams, *, ok: bool) -> Breaker:
    """Return the breaker after an answer; an answer from an earlier generation changes nothing.

    Args:
        breaker: state before.
        ticket: the ticket from `admit`.
        now_ns: time of the answer.
        params: the thresholds.
        ok: whether the answer was complete, valid and in time.
    """
    now = at(breaker, now_ns, params)
    if ticket.generation != now.generation or (now.status == "half_open" and not ticket.probe):
        return now
    return TABLE[now.status, "success" if ok else "failure"](now, now_ns, params)


def at(breaker: Breaker, now_ns: int, params: BreakerParams) -> Breaker:
    """Return the breaker after the passing of time: old failures expire, open turns half-open, a late probe fails."""
    return TABLE[breaker.status, "time"](breaker, now_ns, params)


def retry_at_ns(breaker: Breaker) -> int | None:
    """Return when the next call is possible; None if it is possible now."""
    return breaker.until_ns if breaker.status == "open" or breaker.probing else None


# -- the table -----------------------------------------------------------------------------------------------------
def _same(breaker: Breaker, _now_ns: int, _params: BreakerParams) -> Breaker:
    return breaker


def _forget_old(breaker: Breaker, now_ns: int, params: BreakerParams) -> Breaker:
    since_ns = now_ns - int(params.failure_window_sec * SECOND_NS)
    if not breaker.failures_ns or breaker.failures_ns[0] > since_ns:
        return breaker
    return breaker._replace(failures_ns=tuple(when for when in breaker.failures_ns if when > since_ns))


def _count(breaker: Breaker, now_ns: int, params: BreakerParams) -> Breaker:
    failures = (*breaker.failures_ns, now_ns)
    counted = breaker._replace(failures_ns=failures[-params.failure_threshold :])
    return _trip(counted, now_ns, params) if len(failures) >= params.failure_threshold else counted


def _trip(breaker: Breaker, now_ns: int, params: BreakerParams) -> Breaker:
    timeout_s = _timeout_s(breaker.trips, params)
    until_ns = now_ns + int(timeout_s * SECOND_NS)
    return Breaker("open", (), breaker.generation + 1, until_ns, breaker.trips + 1, timeout_s=timeout_s)


def _try_when_due(breaker: Breaker, now_ns: int, _params: BreakerParams) -> Breaker:
    if now_ns < breaker.until_ns:
        return breaker
    return breaker._replace(status="half_open", generation=breaker.generation + 1)


def _probe(breaker: Breaker, now_ns: int, params: BreakerParams) -> Breaker:
    return breaker._replace(probing=True, until_ns=now_ns + int(params.probe_timeout_sec * SECOND_NS))


def _fail_probe_when_due(breaker: Breaker, now_ns: int, params: BreakerParams) -> Breaker:
    """Fail a probe without an answer as of its deadline, no matter when this is called."""
    if not breaker.probing or now_ns < breaker.until_ns:
        return breaker
    return _try_when_due(_trip(breaker, breaker.until_ns, params), now_ns, params)


def _reset(breaker: Breaker, _now_ns: int, _params: BreakerParams) -> Breaker:
    return Breaker(generation=breaker.generation + 1)


TABLE: Final[dict[tuple[BreakerStatus, BreakerEvent], Rule]] = {
    ("closed", "asked"): _same,
    ("closed", "success"): _same,
    ("closed", "failure"): _count,
    ("closed", "time"): _forget_old,
    ("open", "asked"): _same,
    ("open", "success"): _same,
    ("open", "failure"): _same,
    ("open", "time"): _try_when_due,
    ("half_open", "asked"): _probe,
    ("half_open", "success"): _reset,
    ("half_open", "failure"): _trip,
    ("half_open", "time"): _fail_probe_when_due,
}
"""Transition for each status and event."""


def _timeout_s(trips: int, params: BreakerParams) -> float:
    """Return the open time after a number of consecutive trips: 30, 60, 120, 240, 300 s by default, less the jitter."""
    timeout_s = params.initial_timeout_sec
    for _ in range(trips):
        before, timeout_s = timeout_s, min(params.max_timeout_sec, timeout_s * params.backoff_multiplier)
        if timeout_s == before:
            break
    return timeout_s * (1.0 - params.jitter_ratio * _share(params.jitter_seed + trips))


def _share(number: int) -> float:
    """Return a pseudo-random number in [0, 1), the same for the same argument: splitmix64."""
    mixed = (number + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return (mixed ^ mixed >> 31) / 2**64
