"""The rules that every fault is held to, and where the product is known to break one."""

from fnmatch import fnmatchcase
from typing import NamedTuple

from data_faults.campaign import Result
from data_faults.faults import Cell

UNKNOWN = {"missing", "zero", "NaN", "lost", "emptied", "truncated", "unit", "ahead", "contradicting", "stuck", "sign"}
"""Kinds after which the right value is not known."""


def broken(cell: Cell, result: Result) -> dict[str, str]:
    """Return the rules that a fault breaks, with what it did.

    - band: one fault moves no target by more than the no-trade band.
    - direction: no target has the wrong direction.
    - zero: what is not known never closes a position.
    - lost: good neighbours of what is bad are processed.
    - told: one that lasts and moves something raises an alert or a dead letter.
    """
    found = {}
    if not cell.lasting and result.bands > 1.0:
        found["band"] = f"a target moved by {result.moved_usd:.0f} USD, {result.bands:.2f} bands"
    if result.wrong:
        found["direction"] = f"wrong direction: {result.wrong}"
    if result.flat and cell.kind in UNKNOWN:
        found["zero"] = f"closed: {result.flat}"
    if result.lost:
        found["lost"] = f"not processed: {result.lost}"
    if cell.lasting and result.bands > 1.0 and not result.told:
        found["told"] = f"a target moved by {result.moved_usd:.0f} USD and nobody was told"
    return found


class Known(NamedTuple):
    """A rule that the product is known to break."""

    rule: str
    cells: str
    """Pattern of their names."""
    reason: str


CUTS_AT_ONCE = (
    "one reading beyond a threshold cuts at once, EXIT excepted: to wait for a second one would be to wait in a real "
    "cascade as well"
)
USUAL_CLAIMS = (
    "a claim counts for up to max_usual_claims (3) usual ones, and what was bought on it is kept while it pays"
)
CHANGE_OF_MIND = "a smaller claim cannot be told from a change of mind; it takes a part of one strategy's share"
ESTIMATED = "what a signal does not claim is estimated, and diagnostics say so; the estimate is not the claim"
VOLATILITY = "a claimed volatility counts within a factor of max_volatility_ratio (5) of the coin's own"
ANOTHER_COIN = "a claim for another coin is as well formed as the right one"
OBEYED = "a setting within its range is obeyed, and told by control_applied; config diff shows it"
NUDGE = "an answer within its range moves the cell by up to rl.max_nudge (.3); the gate closes on what it costs"
PLAUSIBLE = "numbers that could be true cannot be told from true ones"
SILENCE = "a report may leave its equity out while it is unknown, and the last one stands"
SLOW_FEED = "fewer than three late ticks in half a minute are not judged"

KNOWN = (
    Known("band", "reading-funding_rate-×100*-once", CUTS_AT_ONCE),
    Known("band", "reading-oi_change_pct-×100-once", CUTS_AT_ONCE),
    Known("band", "reading-liquidation_volume_24h-×*-once", CUTS_AT_ONCE),
    Known("band", "signal-expected_return-×10-once", USUAL_CLAIMS),
    Known("band", "signal-expected_return-×100-once", USUAL_CLAIMS),
    Known("band", "signal-expected_return-÷*-once", CHANGE_OF_MIND),
    Known("band", "signal-expected_return-zero-once", CHANGE_OF_MIND),
    Known("band", "signal-expected_return-missing-once", ESTIMATED),
    Known("band", "signal-predicted_volatility-[×÷]*-once", VOLATILITY),
    Known("band", "signal-confidence-÷*-once", CHANGE_OF_MIND),
    Known("band", "signal-confidence-zero-once", CHANGE_OF_MIND),
    Known("band", "signal-swapped-once", ANOTHER_COIN),
    Known("band", "settings-*kelly_fraction-×10-once", OBEYED),
    Known("band", "settings-*kelly_fraction-×100-once", OBEYED),
    Known("band", "settings-*kelly_fraction-÷*-once", OBEYED),
    Known("band", "settings-*kelly_fraction-missing-once", OBEYED),
    Known("band", "rl-swapped-once", NUDGE),
    Known("told", "tick-price-frozen-lasting", PLAUSIBLE),
    Known("told", "batch-price-frozen-lasting", PLAUSIBLE),
    Known("told", "batch-reordered-lasting", SLOW_FEED),
    Known("told", "signal-expected_return-÷*-lasting", PLAUSIBLE),
    Known("told", "signal-expected_return-zero-lasting", PLAUSIBLE),
    Known("told", "signal-expected_return-missing-lasting", ESTIMATED),
    Known("told", "signal-predicted_volatility-missing-lasting", ESTIMATED),
    Known("told", "signal-confidence-÷*-lasting", PLAUSIBLE),
    Known("told", "signal-confidence-zero-lasting", PLAUSIBLE),
    Known("told", "outcome-realized_return-÷*-lasting", PLAUSIBLE),
    Known("told", "outcome-realized_return-sign-lasting", PLAUSIBLE),
    Known("told", "outcome-realized_return-zero-lasting", PLAUSIBLE),
    Known("told", "positions-equity-missing-lasting", SILENCE),
    Known("told", "positions-equity-frozen-lasting", PLAUSIBLE),
    Known("told", "order-delayed-lasting", PLAUSIBLE),
    Known("told", "rl-position_pct-×10-lasting", NUDGE),
    Known("told", "rl-position_pct-÷*-lasting", NUDGE),
    Known("told", "rl-position_pct-sign-lasting", NUDGE),
    Known("told", "rl-position_pct-zero-lasting", NUDGE),
    Known("told", "rl-position_pct-frozen-lasting", NUDGE),
    Known("told", "rl-swapped-lasting", NUDGE),
    Known("told", "rl-stuck-lasting", NUDGE),
)


def known(cell: Cell) -> list[Known]:
    """Return the rules that a cell is known to break."""
    return [each for each in KNOWN if fnmatchcase(cell.name, each.cells)]
