"""The loop closes: whatever happens to fills and reports, only what signals asked for is traded."""

import os

from hypothesis import given, settings
from loops import Loop, asked, plans
from worlds import SYMBOLS

SCHEDULES = int(os.environ.get("HIMARI_SCHEDULES", "100"))
"""How many each property tries."""
BAND, MINIMUM_USD = 0.10, 10.0
QUIET_S = 400.0
"""The longest chain after the last signal: four parts of a fill and a report's way, a minute each, and the settling."""


def cells(loop: Loop) -> int:
    return max(len(fields["cells"]) for fields in loop.allocations)


def band_usd(loop: Loop, symbol: str) -> float:
    return max(MINIMUM_USD, BAND * loop.largest_usd(symbol))


def played(plan, script) -> tuple[Loop, int]:
    """Return the loop when everything has settled, and how many allocations there were at the last signal."""
    loop = Loop(plan)
    loop.run(2.0)
    for claim, gap_s in script:
        loop.signal(claim)
        known = len(loop.allocations)
        loop.run(gap_s)
    return loop, known


@settings(max_examples=SCHEDULES)
@given(plans, asked)
def test_at_standing_prices_only_what_signals_asked_for_is_traded(plan, script):
    loop, known = played(plan, script)
    loop.run(QUIET_S)
    assert len(loop.allocations) - known <= cells(loop) + 2
    assert all(loop.moved_by_others(symbol) <= band_usd(loop, symbol) for symbol in SYMBOLS)
    bands = sum(band_usd(loop, symbol) for symbol in SYMBOLS if loop.largest_usd(symbol))
    assert loop.account.traded_usd <= loop.asked_usd() + bands
    wanted = {name: each["quantity"] for name, each in loop.allocations[-1]["targets"].items() if each["quantity"]}
    assert loop.account.held == wanted
    assert loop.driver.read("positions.dlq") == []
