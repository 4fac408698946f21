"""A forecast holds until its time has come, not at that time: to the nanosecond."""

import orjson
import pytest
from worlds import PRICES, signal

from engines.allocation import DECISION_VERSION
from engines.fold import apply
from engines.handlers.effects import Journaled
from engines.parameters import DecisionParams, tree_hash
from engines.pipeline.cell_sizing import why_not
from engines.state.partition import State

SECOND_NS = 1_000_000_000
NOW_NS = 1_700_000_000 * SECOND_NS
VALID_S = 60
ENDS_NS = NOW_NS + VALID_S * SECOND_NS
CELL = ("main", "momentum", "BTC-USD")


def folded(*entries):
    """Fold Genesis, prices and entries of (kind, body, time); return the state and what each entry led to."""
    params = DecisionParams()
    genesis = {
        "decision_version": DECISION_VERSION,
        "journal_id": "EXPIRY22",
        "partitions": 1,
        "settings": params.model_dump(),
        "settings_hash": tree_hash(params),
    }
    state, found = State(0), []
    first = (("genesis", genesis, NOW_NS), ("call", {"prices": PRICES}, NOW_NS))
    for offset, (kind, body, now_ns) in enumerate((*first, *entries)):
        found.append(apply(state, Journaled(offset, kind, "", 0, 0, 0, now_ns, body, orjson.dumps(body))))
    return state, found[len(first) :]


ASKED = ("signal", signal(NOW_NS, valid_for_s=VALID_S, signal_id="s-1"), NOW_NS)


def published(found):
    return [(each.decision.trigger.kind, orjson.loads(each.value)["targets"]) for each in found.allocations]


@pytest.mark.parametrize(("now_ns", "gone"), [(ENDS_NS - 1, False), (ENDS_NS, True), (ENDS_NS + 1, True)])
def test_a_position_is_given_up_in_the_nanosecond_that_its_forecast_names(now_ns, gone):
    state, (asked, later) = folded(ASKED, ("tick", {}, now_ns))
    ((kind, targets),) = published(asked)
    assert (kind, targets["BTC-USD"]["quantity"] > 0) == ("signal", True)
    assert state.predictions.get(CELL) is None or (state.predictions.get(CELL).forecast is None) is gone
    if gone:
        ((kind, targets),) = published(later)
        assert kind == "expiry"
        assert targets["BTC-USD"]["quantity"] == 0
    else:
        assert published(later) == []


def test_it_is_told_once():
    _, (_, first, second) = folded(ASKED, ("tick", {}, ENDS_NS), ("tick", {}, ENDS_NS))
    assert [kind for kind, _ in published(first)] == ["expiry"]
    assert published(second) == []


def test_a_newer_forecast_outlives_the_older_ones_end():
    newer = ("signal", signal(NOW_NS + 1, valid_for_s=VALID_S, signal_id="s-2"), NOW_NS + 1)
    _, found = folded(ASKED, newer, ("tick", {}, ENDS_NS), ("tick", {}, ENDS_NS + 1))
    assert published(found[2]) == []
    assert [kind for kind, _ in published(found[3])] == ["expiry"]


@pytest.mark.parametrize(("now_ns", "reason"), [(ENDS_NS - 1, ""), (ENDS_NS, "forecast expired")])
def test_a_signal_that_arrives_at_its_end_is_not_sized(now_ns, reason):
    """It waited in the topic for all the time that it is good for."""
    kind, body, _ = ASKED
    state, (price, found) = folded(("call", {"prices": PRICES}, now_ns), (kind, body, now_ns))
    assert price.allocations == []
    (allocation,) = (orjson.loads(each.value) for each in found.allocations)
    assert allocation["waterfall"][0]["reason"] == reason
    assert bool(allocation["targets"]["BTC-USD"]["quantity"]) is not bool(reason)
    stands = state.predictions.get(CELL).forecast
    market = state.markets.get(("BTC-USD",))
    assert why_not(stands, market, halted=False, now_ns=now_ns, params=DecisionParams()) == reason
