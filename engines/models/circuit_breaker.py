"""Circuit breaker: an endpoint that fails is left alone for a while, then tried with one question.

Time is an argument (any clock that never goes back, ns), the rules are a table: what each event makes of each status.
A ticket belongs to the generation in which it was given: an answer from before a trip changes nothing after it.

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
    """When an endpoint that fails is left alone, and for how long."""

    enabled: bool = Field(default=True, description="false: it counts, and keeps nobody from asking")
    mode: Mode = Field(
        "automatic", description="force_open: nobody asks; force_closed: all ask; metrics_only: it only counts"
    )
    failure_threshold: Annotated[int, Ge(1), Le(10_000)] = Field(5, description="failures that open it")
    failure_window_sec: BreakerSeconds = Field(60.0, description="seconds in which they count")
    initial_timeout_sec: BreakerSeconds = Field(30.0, description="seconds that it stays open at first")
    backoff_multiplier: Annotated[float, Ge(1), Le(10)] = Field(
        2.0, description="times as long after each probe that failed"
    )
    max_timeout_sec: BreakerSeconds = Field(300.0, description="seconds that it stays open, at most")
    probe_timeout_sec: BreakerSeconds = Field(
        10.0, description="seconds after which a probe without an answer has failed"
    )
    jitter_ratio: Annotated[float, Ge(0), Lt(1)] = Field(
        0.0, description="largest share by which it stays open less long"
    )
    jitter_seed: Annotated[int, Ge(0), Le(2**31 - 1)] = Field(0, description="seed of that share")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.initial_timeout_sec > self.max_timeout_sec:
            msg = f"initial_timeout_sec {self.initial_timeout_sec} is above max_timeout_sec {self.max_timeout_sec}"
            raise ValueError(msg)
        return self


class Breaker(NamedTuple):
    """How a breaker stands; the defaults are a new one."""

    status: BreakerStatus = "closed"
    failures_ns: tuple[int, ...] = ()
    """When the failures of the window came."""
    generation: int = 0
    """Rises at every change of status."""
    until_ns: int = 0
    """Open: until when; half-open: when the probe has failed."""
    trips: int = 0
    """How often in a row it has opened: what its patience follows from."""
    probing: bool = False
    """Half-open: whether the one question is on its way."""
    timeout_s: float = 0.0
    """How long it stays open, or stayed last."""


class Ticket(NamedTuple):
    """Leave to ask once."""

    generation: int
    probe: bool


BreakerEvent = Literal["asked", "success", "failure", "time"]
Rule = Callable[[Breaker, int, BreakerParams], Breaker]


def admit(
    breaker: Breaker, now_ns: int, params: BreakerParams, patience_s: float = 0.0
) -> tuple[Breaker, Ticket | None]:
    """Return leave to ask, or None where nobody may ask now.

    Half-open, exactly one may: whoever comes first. Where the mode lets all ask, that one is still the probe, so that
    what is told of the breaker moves on.

    Args:
        breaker: before.
        now_ns: when somebody wants to ask.
        params: the thresholds.
        patience_s: how long the answer is awaited; as a probe the question is not given up before.
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
    """Return the breaker after an answer; one of an earlier generation changes nothing.

    Args:
        breaker: before.
        ticket: what `admit` gave.
        now_ns: when it came.
        params: the thresholds.
        ok: whether the answer was right in full and in time.
    """
    now = at(breaker, now_ns, params)
    if ticket.generation != now.generation or (now.status == "half_open" and not ticket.probe):
        return now
    return TABLE[now.status, "success" if ok else "failure"](now, now_ns, params)


def at(breaker: Breaker, now_ns: int, params: BreakerParams) -> Breaker:
    """Return the breaker as time alone has left it: old failures forgotten, an open one half-open, a probe failed."""
    return TABLE[breaker.status, "time"](breaker, now_ns, params)


def retry_at_ns(breaker: Breaker) -> int | None:
    """Return when the next question may be asked; None where it may be now."""
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
    patience_s = _patience_s(breaker.trips, params)
    until_ns = now_ns + int(patience_s * SECOND_NS)
    return Breaker("open", (), breaker.generation + 1, until_ns, breaker.trips + 1, timeout_s=patience_s)


def _try_when_due(breaker: Breaker, now_ns: int, _params: BreakerParams) -> Breaker:
    if now_ns < breaker.until_ns:
        return breaker
    return breaker._replace(status="half_open", generation=breaker.generation + 1)


def _probe(breaker: Breaker, now_ns: int, params: BreakerParams) -> Breaker:
    return breaker._replace(probing=True, until_ns=now_ns + int(params.probe_timeout_sec * SECOND_NS))


def _give_up_when_due(breaker: Breaker, now_ns: int, params: BreakerParams) -> Breaker:
    """A probe that never answers fails at its deadline, whenever that is looked at."""
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
    ("half_open", "time"): _give_up_when_due,
}
"""What each event makes of each status."""


def _patience_s(trips: int, params: BreakerParams) -> float:
    """Return how long it stays open after so many trips in a row: 30, 60, 120, 240, 300 s, less the jitter."""
    patience_s = params.initial_timeout_sec
    for _ in range(trips):
        before, patience_s = patience_s, min(params.max_timeout_sec, patience_s * params.backoff_multiplier)
        if patience_s == before:
            break
    return patience_s * (1.0 - params.jitter_ratio * _share(params.jitter_seed + trips))


def _share(number: int) -> float:
    """Return a number in [0, 1) that looks drawn by chance, the same for the same number: splitmix64."""
    mixed = (number + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return (mixed ^ mixed >> 31) / 2**64
