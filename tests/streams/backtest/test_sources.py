"""Strategies see the past alone, and what they return is checked before it is sent."""

import numpy as np
import orjson
import pytest
from markets import HOUR_NS, SECOND_NS, START_NS, said, walk

from schemas.errors import ConfigurationException, InvalidSignalException
from streams.backtest.history import History
from streams.backtest.sources import BuiltIn, OfFunction, Together, load_function
from streams.backtest.timeline import instants
from streams.history import strategies

MARKET = [walk("BTC-USD", 80, 1), walk("ETH-USD", 60, 2)]


def sent(source, market=MARKET):
    """Return all signals of a source on a market."""
    found, now_ns = [], 0
    for instant in instants(market):
        if instant.ended:
            source.candles(instant.ended, instant.time_ns)
        found += source.between(now_ns, instant.time_ns + SECOND_NS)
        now_ns = instant.time_ns + SECOND_NS
    return found


# -- the past ----------------------------------------------------------------------------------------------------------
def test_a_history_holds_the_ended_candles_and_nothing_of_the_next_ones_even_in_the_memory_behind_its_arrays():
    history, candles = History(MARKET), MARKET[0]
    for row in candles.rows[:10]:
        history.add("BTC-USD", row, candles.end_ns(row))
    seen = history["BTC-USD"]
    assert (len(seen), list(history)) == (10, ["BTC-USD"])
    for name in ("open", "high", "low", "close"):
        column = getattr(seen, name)
        assert column.tolist() == [getattr(row, name) for row in candles.rows[:10]]
        assert np.isnan(column.base[:, 10:]).all()
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1.0
    assert seen.volume.tolist() == [row.volume_coins for row in candles.rows[:10]]
    assert seen.end_ns.tolist() == [candles.end_ns(row) for row in candles.rows[:10]]
    assert (seen.end_ns.base[10:] == 0).all()


def test_a_function_is_called_a_second_after_candles_end_with_those_that_have():
    calls = []

    def on_bar(history):
        calls.append((history.now_ns, {symbol: len(history[symbol]) for symbol in history}, history.ended))

    assert sent(OfFunction(on_bar, MARKET)) == []
    assert len(calls) == 80
    assert calls[0] == (START_NS + HOUR_NS + SECOND_NS, {"BTC-USD": 1, "ETH-USD": 1}, ("BTC-USD", "ETH-USD"))
    assert calls[-1][1:] == ({"BTC-USD": 80, "ETH-USD": 60}, ("BTC-USD",))


# -- what is returned --------------------------------------------------------------------------------------------------
def once(value):
    """Return a strategy that returns a value at its fifth candle."""

    def strategy(history):
        return value(history) if len(history["BTC-USD"]) == 5 else None

    return OfFunction(strategy, MARKET)


def plain_signal(_history, **given):
    fields = said(5, **given)
    del fields["timestamp_ns"], fields["strategy_id"]
    return fields


def test_a_signal_is_completed_with_its_time_its_strategy_and_an_id():
    (found,) = sent(once(plain_signal))
    at_ns = START_NS + 5 * HOUR_NS + SECOND_NS
    assert (found.time_ns, found.message.timestamp_ns) == (at_ns, at_ns)
    assert (found.message.strategy_id, found.message.signal_id) == ("strategy", "strategy-1")
    assert orjson.loads(found.value)["horizon_s"] == 21_600.0


def test_numbers_of_numpy_are_numbers():
    (found,) = sent(once(lambda history: [plain_signal(history, confidence=np.float64(0.25))]))
    assert found.message.confidence == 0.25


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (lambda _: 1 / 0, r"strategy at 2020-09-13T05:00:01\+00:00: must return signals, raised ZeroDivisionError"),
        (lambda _: 7, "must return signals, raised TypeError: 'int' object is not iterable"),
        (lambda _: ["buy"], "signal 1: must be a mapping with the fields of a signal, was str"),
        (lambda h: [plain_signal(h), {"symbol": "BTC-USD"}], "signal 2: action"),
        (lambda h: plain_signal(h, confidence=1.2), "confidence must be at most 1, was 1.2"),
        (lambda h: plain_signal(h, expected_return=float("nan")), "expected_return"),
        (
            lambda h: plain_signal(h, symbol="DOGE-USD"),
            "must have candles, which only BTC-USD, ETH-USD have, was 'DOGE",
        ),
        (lambda h: {**plain_signal(h), "timestamp_ns": h.now_ns + 1}, "timestamp_ns: must not be later than now"),
        (lambda h: plain_signal(h, confidence=object()), "must hold plain values"),
    ],
    ids=["raises", "a number", "a text", "incomplete", "out of range", "nan", "no candles", "the future", "an object"],
)
def test_nonsense_is_refused_in_one_line(value, text):
    with pytest.raises(InvalidSignalException, match=text) as refused:
        sent(once(value))
    assert refused.value.exit_code == 5
    assert "\n" not in str(refused.value)


# -- names -------------------------------------------------------------------------------------------------------------
def test_built_in_strategies_send_what_the_demo_sends():
    feed = [each for each in strategies.feed(MARKET) if each.topic == "signals"]
    found = sent(BuiltIn(["momentum", "mean-reversion"], MARKET))
    assert [each.time_ns for each in found] == [each.time_ns for each in feed]
    assert [orjson.loads(each.value) for each in found] == [orjson.loads(each.value) for each in feed]
    assert len(found) > 60


def test_strategies_can_be_combined():
    source = Together([BuiltIn(["momentum"], MARKET), once(plain_signal)])
    assert source.names() == ("momentum", "strategy")
    assert [each.message.strategy_id for each in sent(source)][:2] == ["strategy", "momentum"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "no.such.module:f",
            r"--strategy: no\.such\.module:f must be importable, was refused with ModuleNotFoundError",
        ),
        ("math:nothing", "refused with AttributeError"),
        ("math:pi", "must be a function"),
    ],
)
def test_a_function_that_is_none_is_refused(name, text):
    with pytest.raises(ConfigurationException, match=text):
        load_function(name)


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationException, match=r"must be one of momentum, mean-reversion, or package.*'trend'"):
        BuiltIn(["trend"], MARKET)
