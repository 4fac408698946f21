"""The loop closes: whatever happens to fills and reports, only what signals asked for is traded."""

import os
from itertools import pairwise
from math import log

from hypothesis import Phase, given, settings
from loops import STRATEGIES, Loop, asked, plans
from worlds import SYMBOLS

from engines.models.drawdown import multiplier

SCHEDULES = int(os.environ.get("HIMARI_SCHEDULES", "40"))
"""How many each property tries, the one of wandering prices half of them."""
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""A schedule is as short as it is drawn: to shrink one takes minutes."""
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


@settings(max_examples=SCHEDULES, phases=PHASES)
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


@settings(max_examples=SCHEDULES // 2 or 1, phases=PHASES)
@given(plans, asked)
def test_at_prices_that_wander_by_a_percent_targets_only_shrink_and_no_further_than_caps_and_drawdown_ask(plan, script):
    """The bound: between two cuts by one cap, size over cap must grow from .99 to 1.01 of it.

    Size over cap moves with price/value; w is the ratio of its largest to its smallest. So one cap cuts at most
    1 + log w / log(1.01/.99) times, and all its cuts together leave at least .99/w of what stood. Four caps lie over a
    cell (its own, its symbol's, its strategy's, the portfolio's), and the drawdown multiplier takes its part once.
    Reports are frequent here and few are lost, so that what is held is known when prices begin to wander.
    """
    loop, _ = played(plan._replace(every_s=7.0, lose=min(plan.lose, 0.3)), script)
    loop.run(QUIET_S)
    before, known, traded_usd = loop.allocations[-1], len(loop.allocations), loop.account.traded_usd
    loop.values = loop.values[-1:]
    loop.wander = 0.01
    loop.run(400.0)
    loop.wander = 0.0
    loop.run(QUIET_S)
    after = loop.allocations[known:]
    swing = 1.01 / 0.99 * max(loop.values) / min(loop.values)
    each = 1 + int(log(swing) / log(1.01 / 0.99))
    caps_over = len(before["cells"]) + len(SYMBOLS) + len(STRATEGIES) + 1
    assert {fields["trigger"]["kind"] for fields in after} <= {"cap", "value"}
    assert len(after) <= each * caps_over
    for one, next_ in pairwise([before, *after]):
        for symbol, quantity in one_sided(one).items():
            then = next_["targets"].get(symbol, {"quantity": 0.0})["quantity"]
            assert abs(then) <= abs(quantity)
            assert then * quantity >= 0.0
    left = (0.99 / swing) ** 4 * multiplier(max(loop.values), min(loop.values), 0.30)
    gross_usd = before["total_allocated_usd"] * 1.02
    assert loop.account.traded_usd - traded_usd <= gross_usd * (1 - left) + MINIMUM_USD


def one_sided(fields) -> dict[str, float]:
    """Return the quantity of each symbol whose cells are all of one side: a cut of one side of a net may raise it."""
    sides: dict[str, set[bool]] = {}
    for cell in fields["cells"]:
        sides.setdefault(cell["symbol"], set()).add(cell["cents"] > 0)
    return {symbol: fields["targets"][symbol]["quantity"] for symbol, found in sides.items() if len(found) == 1}
