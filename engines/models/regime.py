"""Regime: confirms the market regime with hysteresis, and scales sizes by it.

Every event-time period has one vote, the most severe regime among its signals. A change is confirmed by h of the last
2h − 1 votes since the previous change; CRISIS needs one. The state depends only on the votes of the periods, not on the
order of signals within a period: a change made by the open period's vote is undone if a later signal of the same period
changes that vote.

    >>> state, params = None, RegimeParams()
    >>> for minute, label in enumerate(("ranging", "high_volatility", "high_volatility", "high_volatility")):
    ...     state, change = step(state, label, minute * 60 * SECOND_NS, params)
    >>> state.confirmed, change.kind, multiplier(state.confirmed, 1, params)
    ('high_volatility', 'transition', 0.6)

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
    """Regime state of one symbol in one portfolio."""

    confirmed: Regime
    candidate: Regime | None
    """The other regime with the most votes (of equals, the newest); None if there is none."""
    votes: tuple[Vote, ...]
    """Votes of the last 2h − 1 periods since the last change; the last one is the open period's."""
    settled: Regime
    """The confirmed regime when the open period began."""


class RegimeChange(NamedTuple):
    """The effect of a vote: it confirmed another regime (transition), or ended a candidate (false flip)."""

    kind: Literal["transition", "false_flip"]
    from_regime: Regime
    to_regime: Regime
    """The newly confirmed regime, or the former candidate."""


def step(
    state: RegimeState | None, regime: Regime, timestamp_ns: int, params: RegimeParams
) -> tuple[RegimeState, RegimeChange | None]:
    """Return the state updated by one signal's regime, and what changed.

    A late signal from one of the 2h − 2 periods before the open one counts in the open period, so that no warning is
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
    """Return the size multiplier of a regime; for a short (side −1) the two trends are swapped."""
    effective = OPPOSITE.get(regime, regime) if side < 0 else regime
    found: float = getattr(params.multipliers, effective)
    return found


def resolve(label: str, params: RegimeParams) -> Regime | None:
    """Return the regime of a label; None if the label is unknown.

    Case is ignored; spaces and hyphens count as underscores. `regime_aliases` adds labels and cannot redefine known
    ones.
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
    """Return the candidate's votes divided by h, in [0, 1); 0 without a candidate."""
    votes = sum(regime == state.candidate for _, regime in state.votes)
    return votes / params.hysteresis_periods


def _adds_nothing(newest: Vote, period: int, regime: Regime) -> bool:
    """Return whether a signal is not newer than the open period and not more severe than its vote."""
    return period <= newest[0] and SEVERITY[regime] <= SEVERITY[newest[1]]


def _opened(
    state: RegimeState, period: int, regime: Regime, params: RegimeParams
) -> tuple[Regime, tuple[Vote, ...]] | None:
    """Return (confirmed regime when the open period began, votes with this one); None if the signal is too late."""
    settled, votes = state.settled, state.votes
    kept = 2 * params.hysteresis_periods - 1
    if not votes or period > votes[-1][0]:
        since = votes if state.confirmed == settled else votes[-1:]
        return state.confirmed, (*since, (period, regime))[-kept:]
    number, current = votes[-1]
    if period <= number - kept:
        return None
    worse = regime if SEVERITY[regime] > SEVERITY[current] else current
    return settled, (*votes[:-1], (number, worse))[-kept:]


def _confirmed(settled: Regime, votes: tuple[Vote, ...], needed: int) -> Regime:
    """Return the regime that the votes confirm, else the settled one. At most one regime can have h of 2h − 1 votes."""
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
