"""Regime: which weather a market is in, believed slowly, and how far to shrink in it.

Every event-time period has one vote, the most severe of its signals'. A change is confirmed by h of the last 2h − 1
votes since the change before; CRISIS needs one. The state depends only on the votes of the periods, not on the order
of signals within one: a change that the open period's vote made is undone where a later signal of the same period
makes that vote another one.

Source: docs/methods.md, section 4.
"""

from typing import Literal, NamedTuple

from engines.parameters import RegimeParams
from schemas.vocabulary import Regime

__all__ = ["SEVERITY", "RegimeChange", "RegimeState", "multiplier", "progress", "resolve", "step"]

SEVERITY: dict[Regime, int] = {"trending_up": 0, "ranging": 1, "trending_down": 2, "high_volatility": 3, "crisis": 4}
KNOWN: dict[str, Regime] = {**{name: name for name in SEVERITY}, "crisis_flight": "crisis"}
OPPOSITE: dict[Regime, Regime] = {"trending_up": "trending_down", "trending_down": "trending_up"}
SECOND_NS = 1_000_000_000

Vote = tuple[int, Regime]
"""(period, regime)."""


class RegimeState(NamedTuple):
    """What one portfolio believes of one symbol."""

    confirmed: Regime
    candidate: Regime | None
    """The regime that most votes would change to (the newest of equals), None where no vote would."""
    votes: tuple[Vote, ...]
    """Of the last 2h − 1 periods that voted since the last change; the last one is of the open period."""
    settled: Regime
    """What was confirmed when the open period began."""


class RegimeChange(NamedTuple):
    """What a vote did: it confirmed another regime, or made the candidate be given up."""

    kind: Literal["transition", "false_flip"]
    from_regime: Regime
    to_regime: Regime
    """The regime confirmed, or the candidate given up."""


def step(
    state: RegimeState | None, regime: Regime, timestamp_ns: int, params: RegimeParams
) -> tuple[RegimeState, RegimeChange | None]:
    """Take one signal's regime; return the new state and what changed.

    A late signal, of one of the 2h − 2 periods before the open one, counts in the open one, so that no warning is
    lost; an older one is ignored.
    """
    period = timestamp_ns // (params.regime_period_s * SECOND_NS)
    if state is not None and state.votes and _adds_nothing(state.votes[-1], period, regime):
        return state, None
    before = RegimeState("ranging", None, (), "ranging") if state is None else state
    opened = _opened(before, period, regime, params)
    if opened is None:
        return before, None
    settled, votes = opened
    confirmed = _confirmed(settled, votes, params.hysteresis_periods)
    candidate = _candidate(settled, votes) if confirmed == settled else None
    return RegimeState(confirmed, candidate, votes, settled), _change(before, confirmed, candidate)


def multiplier(regime: Regime, side: int, params: RegimeParams) -> float:
    """Return the size multiplier of a regime; for a short (side −1) the two trends swap."""
    seen = OPPOSITE.get(regime, regime) if side < 0 else regime
    found: float = getattr(params.multipliers, seen)
    return found


def resolve(label: str, params: RegimeParams) -> Regime | None:
    """Return the regime that a label means, None where it means none.

    Any case; spaces and hyphens count as underscores. `regime_aliases` adds labels and cannot take known ones away.
    """
    found = KNOWN.get(label)
    if found is not None:
        return found
    name = _plain(label)
    found = KNOWN.get(name)
    if found is not None:
        return found
    return next((regime for alias, regime in params.regime_aliases.items() if _plain(alias) == name), None)


def progress(state: RegimeState, params: RegimeParams) -> float:
    """Return how much of a confirmation the candidate has, in [0, 1): its votes over h; 0 without one."""
    votes = sum(regime == state.candidate for _, regime in state.votes)
    return votes / params.hysteresis_periods


def _adds_nothing(newest: Vote, period: int, regime: Regime) -> bool:
    """Return whether a signal is of the open period or before it, and no worse than the vote that stands."""
    return period <= newest[0] and SEVERITY[regime] <= SEVERITY[newest[1]]


def _opened(
    state: RegimeState, period: int, regime: Regime, params: RegimeParams
) -> tuple[Regime, tuple[Vote, ...]] | None:
    """Return (regime confirmed when the open period began, votes with this one); None where it is too late to count."""
    settled, votes = state.settled, state.votes
    kept = 2 * params.hysteresis_periods - 1
    if not votes or period > votes[-1][0]:
        since = votes if state.confirmed == settled else votes[-1:]
        return state.confirmed, (*since, (period, regime))[-kept:]
    number, standing = votes[-1]
    if period <= number - kept:
        return None
    worse = regime if SEVERITY[regime] > SEVERITY[standing] else standing
    return settled, (*votes[:-1], (number, worse))[-kept:]


def _confirmed(settled: Regime, votes: tuple[Vote, ...], needed: int) -> Regime:
    """Return the regime that the votes confirm, else the settled one. No two can have h of 2h − 1 votes."""
    newest = votes[-1][1]
    if newest == "crisis":
        return newest
    count = sum(regime == newest for _, regime in votes)
    return newest if count >= needed else settled


def _candidate(settled: Regime, votes: tuple[Vote, ...]) -> Regime | None:
    counts: dict[Regime, int] = {}
    for _, regime in reversed(votes):
        if regime != settled:
            counts[regime] = counts.get(regime, 0) + 1
    return max(counts, key=counts.__getitem__, default=None)


def _change(before: RegimeState, confirmed: Regime, candidate: Regime | None) -> RegimeChange | None:
    if confirmed != before.confirmed:
        return RegimeChange("transition", before.confirmed, confirmed)
    if before.candidate not in {None, candidate}:
        return RegimeChange("false_flip", confirmed, before.candidate)
    return None


def _plain(label: str) -> str:
    return label.strip().lower().replace(" ", "_").replace("-", "_")
