"""What a position pays for its funding goes into the costs of its claim: worked out by hand."""

import orjson
import pytest
from worlds import PRICES, last, priced, signal

from engines.allocation import DECISION_VERSION
from engines.fold import apply
from engines.handlers.effects import Journaled
from engines.parameters import DecisionParams, tree_hash
from engines.state.partition import State

SECOND_NS = 1_000_000_000
NOW_NS = 1_700_000_000 * SECOND_NS
HOUR_S = 3_600.0
DAY_NS = 86_400 * SECOND_NS


def forecast(reading, ask, *, after_ns=0):
    """Return the forecast that a signal leaves, so long after a reading."""
    params = DecisionParams.model_validate(
        {"position_sizing": {"costs": {"fee_ratio": 0.0005, "slippage_ratio": 0.0002}}}
    )
    genesis = {
        "decision_version": DECISION_VERSION,
        "journal_id": "FUNDNG22",
        "partitions": 1,
        "settings": params.model_dump(),
        "settings_hash": tree_hash(params),
    }
    state = State(0)
    entries = [("genesis", genesis, NOW_NS), ("call", {"prices": PRICES}, NOW_NS)]
    if reading is not None:
        entries.append(("cascade", {"timestamp_ns": NOW_NS, **reading}, NOW_NS))
    entries.append(("signal", signal(NOW_NS + after_ns, **ask), NOW_NS + after_ns))
    for offset, (kind, body, now_ns) in enumerate(entries):
        apply(state, Journaled(offset, kind, "", 0, 0, 0, now_ns, body, orjson.dumps(body)))
    return state.predictions.get(("main", "momentum", "BTC-USD")).forecast


ROUND_TRIP = 0.0014
"""Twice the fee of 5 and the slippage of 2 basis points."""


@pytest.mark.parametrize(
    ("reading", "ask", "costs"),
    [
        # 4 basis points every 8 h, over 8 h: one payment
        ({"funding_rate": 0.0004}, {"horizon_s": 8 * HOUR_S}, ROUND_TRIP + 0.0004),
        # over 6 h: three quarters of one
        ({"funding_rate": 0.0004}, {"horizon_s": 6 * HOUR_S}, ROUND_TRIP + 0.0003),
        # over two days: six of them
        ({"funding_rate": 0.0004}, {"horizon_s": 48 * HOUR_S}, ROUND_TRIP + 0.0024),
        # the same rate every 4 h is twice as much a day
        ({"funding_rate": 0.0004, "funding_interval_hours": 4}, {"horizon_s": 8 * HOUR_S}, ROUND_TRIP + 0.0008),
        # every hour, over one and a half hours
        ({"funding_rate": 0.0001, "funding_interval_hours": 1}, {"horizon_s": 1.5 * HOUR_S}, ROUND_TRIP + 0.00015),
        # a short receives what longs pay
        ({"funding_rate": 0.0004}, {"horizon_s": 8 * HOUR_S, "action": "sell"}, ROUND_TRIP - 0.0004),
        # and pays where the rate is negative
        ({"funding_rate": -0.0004}, {"horizon_s": 8 * HOUR_S, "action": "sell"}, ROUND_TRIP + 0.0004),
        ({"funding_rate": -0.0004}, {"horizon_s": 8 * HOUR_S}, ROUND_TRIP - 0.0004),
        # the horizon that is not said is an hour: an eighth of a payment
        ({"funding_rate": 0.0008}, {}, ROUND_TRIP + 0.0001),
        ({"funding_rate": 0.0}, {"horizon_s": 8 * HOUR_S}, ROUND_TRIP),
        (None, {"horizon_s": 8 * HOUR_S}, ROUND_TRIP),
        # another symbol's, and the whole market's, are not this one's
        ({"funding_rate": 0.0004, "symbol": "ETH-USD"}, {"horizon_s": 8 * HOUR_S}, ROUND_TRIP),
        ({"funding_rate": 0.0004, "symbol": None}, {"horizon_s": 8 * HOUR_S}, ROUND_TRIP),
        # what claims no return is taken as net of costs
        ({"funding_rate": 0.0004}, {"horizon_s": 8 * HOUR_S, "expected_return": None}, 0.0),
    ],
)
def test_costs_are_the_round_trip_and_the_funding_over_the_horizon(reading, ask, costs):
    side = -1 if ask.get("action") == "sell" else 1
    if "expected_return" not in ask:
        ask = {**ask, "expected_return": side * 0.01}
    reading = reading and {"symbol": "BTC-USD", **reading}
    assert forecast(reading, ask).costs == pytest.approx(costs, rel=0, abs=1e-15)


@pytest.mark.parametrize(("age_ns", "costs"), [(DAY_NS, ROUND_TRIP + 0.0004), (DAY_NS + 1, ROUND_TRIP)])
def test_a_rate_that_is_older_than_a_day_is_not_known(age_ns, costs):
    reading = {"symbol": "BTC-USD", "funding_rate": 0.0004}
    found = forecast(reading, {"horizon_s": 8 * HOUR_S}, after_ns=age_ns)
    assert found.costs == pytest.approx(costs, rel=0, abs=1e-15)


@pytest.mark.parametrize(("rate", "bought"), [(0.0, True), (0.0002, True), (0.0003, False), (0.0004, False)])
def test_a_claim_that_the_funding_eats_up_is_not_sized(rate, bought):
    """Of 1 % with confidence 0.8 the prior believes half, 0.4 %; less fees of 0.1 %; less ten payments of funding."""
    driver = priced()
    driver.publish("cascade-indicators", {"symbol": "BTC-USD", "timestamp_ns": driver.now_ns, "funding_rate": rate})
    driver.run()
    driver.publish("signals", signal(driver.now_ns, horizon_s=80 * HOUR_S, signal_id="s-1"))
    driver.run()
    found = last(driver)
    assert found["trigger"]["id"] == "s-1"
    assert found["waterfall"][0]["stage"] == "kelly"
    assert found["waterfall"][0]["reason"] == ("" if bought else "no edge")
    assert (found["targets"]["BTC-USD"]["quantity"] > 0) is bought
