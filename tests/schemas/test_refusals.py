"""What is refused, why, and where: a table, since the rules are one."""

import json

import pytest

from schemas.cascade import CascadeIndicators
from schemas.control import Control
from schemas.errors import (
    InvalidCascadeIndicatorsException,
    InvalidControlException,
    InvalidMessage,
    InvalidOutcomeException,
    InvalidPositionsException,
    InvalidPriceException,
    InvalidSignalException,
    SizingError,
)
from schemas.outcome import TradeOutcome
from schemas.positions import Positions
from schemas.signal import TacticalSignal
from schemas.wire import RecordLimits, check_time, decode, decode_ours, decode_prices
from tests.schemas.examples import BAD_OTHERS, BAD_PRICES, BAD_SIGNALS, GOOD, NOW, TEXT, TICK, plus, with_


@pytest.mark.parametrize(("value", "code", "field"), BAD_SIGNALS.values(), ids=BAD_SIGNALS)
def test_a_bad_signal_is_refused_with_its_code_and_field(value, code, field):
    with pytest.raises(InvalidSignalException) as refused:
        decode(TacticalSignal, value, place="signals[3]@17")
    assert (refused.value.code, refused.value.field) == (code, field)
    assert str(refused.value).startswith("signals[3]@17: ")
    assert len(str(refused.value)) < 400


def test_there_are_more_than_sixty_kinds_of_bad_signals():
    assert len(BAD_SIGNALS) > 90
    assert len({code for _, code, _ in BAD_SIGNALS.values()}) >= 15


@pytest.mark.parametrize(("model", "tree", "code", "field"), BAD_OTHERS)
def test_every_other_message_is_refused_alike(model, tree, code, field):
    with pytest.raises(InvalidMessage) as refused:
        decode(model, json.dumps(tree).encode(), place="there")
    assert (refused.value.code, refused.value.field) == (code, field)


@pytest.mark.parametrize(("tree", "code", "field"), BAD_PRICES)
def test_a_bad_price_is_refused_with_all_its_record(tree, code, field):
    with pytest.raises(InvalidPriceException) as refused:
        decode_prices(json.dumps(tree).encode(), place="prices[0]@1")
    assert (refused.value.code, refused.value.field) == (code, field)


@pytest.mark.parametrize(("model", "tree"), GOOD)
def test_a_good_message_is_taken(model, tree):
    assert decode(model, json.dumps(tree).encode(), place="there")
    assert decode_ours(model, json.dumps(tree).encode(), place="there")


@pytest.mark.parametrize(
    "value",
    [
        plus('"note":"a:b","other":{"x":[1,{"y":null}]}'),
        plus('"note":"with \\"quotes\\" and [brackets] {too}"'),
        plus('"note":' + "[" * 7 + "]" * 7),
        plus('"note":' + "9" * 30),
        plus('"note":true,"confidence_pct":"high"'),
        with_(expected_return=0),
        with_(expected_return=0.0, action="sell"),
        with_(action="sell", expected_return=0.01),
        with_(action="sell", expected_return=-0.01),
        with_(action="hold", expected_return=-0.01),
        with_(regime="CRISIS_FLIGHT"),
        with_(regime="Trending Up"),
        with_(confidence=1),
        with_(strategy_id="--"),
        with_(signal_id=None, predicted_volatility=None, sentiment_trend="up"),
        f"  {TEXT}\n".encode(),
    ],
)
def test_what_is_odd_but_within_the_rules_is_taken(value):
    assert decode(TacticalSignal, value, place="there").symbol == "BTCUSDT"


def test_ticks_come_as_plain_dicts_one_or_many():
    one = decode_prices(json.dumps(TICK).encode(), place="there")
    many = decode_prices(json.dumps({"ticks": [TICK, TICK | {"low": 1.0, "more": 1}]}).encode(), place="there")
    assert one == [TICK]
    assert many == [TICK, TICK | {"low": 1.0}]


def test_the_text_names_place_rule_and_value():
    with pytest.raises(InvalidSignalException, match="must be at most 1") as refused:
        decode(TacticalSignal, with_(confidence=1.2), place="signals[0]@7")
    assert str(refused.value) == "signals[0]@7: confidence must be at most 1, was 1.2"
    with pytest.raises(InvalidSignalException, match="looks like milliseconds"):
        decode(TacticalSignal, with_(timestamp_ns=1_735_689_600_000), place="signals[0]@7")


def test_limits_are_those_asked_for():
    assert decode(TacticalSignal, TEXT.encode(), place="there", limits=RecordLimits(len(TEXT), 1))
    with pytest.raises(InvalidSignalException) as refused:
        decode(TacticalSignal, TEXT.encode(), place="there", limits=RecordLimits(len(TEXT) - 1, 1))
    assert refused.value.code == "too_large"
    with pytest.raises(InvalidSignalException) as refused:
        decode(TacticalSignal, plus('"note":[]'), place="there", limits=RecordLimits(depth_max=1))
    assert refused.value.code == "too_deep"


def test_a_time_ahead_of_the_clock_is_refused():
    signal = decode(TacticalSignal, TEXT.encode(), place="there")
    check_time(signal, signal.timestamp_ns, NOW, place="there")
    with pytest.raises(InvalidSignalException, match="ahead of the clock") as refused:
        check_time(signal, signal.timestamp_ns, NOW - 1, place="there")
    assert refused.value.code == "in_future"


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (TacticalSignal, InvalidSignalException),
        (CascadeIndicators, InvalidCascadeIndicatorsException),
        (TradeOutcome, InvalidOutcomeException),
        (Positions, InvalidPositionsException),
        (Control, InvalidControlException),
    ],
)
def test_each_message_has_its_own_exception_in_the_one_tree(model, named):
    with pytest.raises(named) as refused:
        decode(model, b"{}", place="there")
    assert isinstance(refused.value, SizingError)
    assert refused.value.exit_code == 5
