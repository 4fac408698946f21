import math
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import wire
from schemas.outcome import TradeOutcome
from schemas.price import PriceTick
from schemas.signal import TacticalSignal
from streams.history import candles, strategies
from streams.history.candles import Candle, CandleFile, Candles
from streams.history.feed import ORDER
from streams.history.strategies import HORIZON, REACTION_NS, STRATEGIES, WARMUP

DATA = Path(__file__).parents[4] / "shared" / "data"
REAL = sorted(DATA.glob("*USDT_1h_*.csv.gz"))
HOUR_NS = 3_600 * 10**9
START_NS = 1_600_000_000 * 10**9 // HOUR_NS * HOUR_NS
MODELS = {"prices": PriceTick, "signals": TacticalSignal, "outcomes": TradeOutcome}


def of_closes(closes, symbol="BTC-USD", missing=()):
    rows = [
        Candle(START_NS + n * HOUR_NS, close, close, close, close, 1.0)
        for n, close in enumerate(closes)
        if n not in missing
    ]
    return Candles(symbol, 3_600, rows, CandleFile(len(rows), 0, 0))


def wave(n=200, rise=0.0):
    return [100.0 * (1.0 + rise) ** k * (1.0 + 0.01 * math.sin(k * 1.7)) for k in range(n)]


def said(events, strategy=None):
    fields = [orjson.loads(each.value) for each in events if each.topic == "signals"]
    return [each for each in fields if strategy in {None, each["strategy_id"]}]


def settled(events):
    return [orjson.loads(each.value) for each in events if each.topic == "outcomes"]


def tape_of(closes):
    tape = None
    for candle in of_closes(closes).rows:
        tape = strategies.step(tape, candle)
    return tape


def test_every_message_is_valid_and_none_lies_ahead_of_its_moment():
    for each in strategies.feed([of_closes(wave())]):
        message = wire.decode(MODELS[each.topic], each.value, place=each.topic)
        assert message.timestamp_ns <= each.time_ns
        assert each.key == b"BTC-USD"


def test_events_come_in_order_and_of_one_moment_the_known_before_what_is_made_of_it():
    events = list(strategies.feed([of_closes(wave(), "A-USD"), of_closes(wave(150, 0.001), "B-USD")]))
    ranks = [(each.time_ns, ORDER.index(each.topic)) for each in events]
    assert ranks == sorted(ranks)
    assert {each.key for each in events} == {b"A-USD", b"B-USD"}


def test_nothing_is_said_before_the_warmup_is_over():
    events = list(strategies.feed([of_closes(wave(WARMUP + 3))]))
    signals = [each for each in events if each.topic == "signals"]
    assert len(signals) == 4 * len(STRATEGIES)
    assert signals[0].time_ns == START_NS + WARMUP * HOUR_NS + REACTION_NS


def test_a_candles_signal_comes_a_second_after_its_tick():
    events = list(strategies.feed([of_closes(wave())]))
    ticks = {each.time_ns for each in events if each.topic == "prices"}
    assert {each.time_ns - REACTION_NS for each in events if each.topic == "signals"} <= ticks


@given(st.lists(st.floats(-0.2, 0.2), min_size=WARMUP + HORIZON + 2, max_size=120), st.data())
def test_what_is_said_never_depends_on_what_comes_later(returns, data):
    closes = [100.0]
    for r in returns:
        closes.append(closes[-1] * (1.0 + r))
    cut = data.draw(st.integers(1, len(closes)))
    whole = list(strategies.feed([of_closes(closes)]))
    beginning = list(strategies.feed([of_closes(closes[:cut])]))
    assert beginning == whole[: len(beginning)]


def test_momentum_follows_and_reversion_opposes_a_rise():
    rising = list(strategies.feed([of_closes(wave(rise=0.003))]))
    assert {each["action"].removeprefix("strong_") for each in said(rising, "momentum")[50:]} == {"buy"}
    assert {each["action"].removeprefix("strong_") for each in said(rising, "mean-reversion")[50:]} == {"sell"}


def test_scores_are_about_one_in_size_where_there_is_only_chance():
    closes, state = [100.0], 1
    for _ in range(5_000):
        state = state * 6364136223846793005 % 2**64 + 1442695040888963407
        closes.append(closes[-1] * (1.01 if state >> 63 else 1 / 1.01))
    tape, sums = None, dict.fromkeys(STRATEGIES, 0.0)
    for n, candle in enumerate(of_closes(closes).rows):
        tape = strategies.step(tape, candle)
        if n > 200:
            sums = {name: sums[name] + score(tape) ** 2 for name, score in STRATEGIES.items()}
    assert all(0.5 < math.sqrt(total / 4_800) < 1.6 for total in sums.values()), sums


def test_volatility_is_that_of_one_candle_and_claims_are_scaled_to_the_horizon():
    tape = tape_of([100.0 * (1.01 if n % 2 else 1.0) for n in range(400)])
    assert tape.volatility == pytest.approx(0.00995, rel=0.01)
    one = strategies.signal("momentum", "X-USD", tape, START_NS, 3_600, 3_600)
    four = strategies.signal("momentum", "X-USD", tape, START_NS, 4 * 3_600, 3_600)
    assert four["predicted_volatility"] == pytest.approx(2 * one["predicted_volatility"])
    assert four["expected_return"] == pytest.approx(2 * one["expected_return"])


@pytest.mark.parametrize(
    ("closes", "label"),
    [
        (wave(), "ranging"),
        (wave(rise=0.003), "trending_up"),
        (wave(rise=-0.003), "trending_down"),
        ([*wave(180), *(100.0 * (1.0 + 0.012 * (-1) ** n) for n in range(20))], "high_volatility"),
        ([*wave(180), *(100.0 * 0.96**n for n in range(1, 13))], "crisis"),
    ],
)
def test_the_regime_is_read_off_the_candles(closes, label):
    assert strategies.regime(tape_of(closes)) == label


def test_an_outcome_is_the_assets_return_one_horizon_after_its_signal():
    closes = wave(WARMUP + HORIZON + 5)
    events = list(strategies.feed([of_closes(closes)]))
    first, outcome = said(events)[0], settled(events)[0]
    assert outcome["signal_id"] == first["signal_id"]
    assert outcome["realized_return"] == closes[WARMUP - 1 + HORIZON] / closes[WARMUP - 1] - 1.0
    assert outcome["timestamp_ns"] == first["timestamp_ns"] + HORIZON * HOUR_NS
    assert outcome["holding_s"] == first["horizon_s"] == HORIZON * 3_600


def test_each_claim_is_settled_once_but_those_whose_horizon_has_not_come():
    events = list(strategies.feed([of_closes(wave(120))]))
    names = [each["signal_id"] for each in said(events) if each["action"] != "hold"]
    assert [each["signal_id"] for each in settled(events)] == names[: -HORIZON * len(STRATEGIES)]
    assert len(set(names)) == len(names)


def test_a_claim_whose_end_lies_in_a_gap_is_never_settled():
    missing = WARMUP + 2 + HORIZON
    events = list(strategies.feed([of_closes(wave(120), missing={missing})]))
    unsettled = f"/{(START_NS + (missing - HORIZON + 1) * HOUR_NS + REACTION_NS) // 10**9}"
    assert any(each["signal_id"].endswith(unsettled) for each in said(events))
    assert not any(each["signal_id"].endswith(unsettled) for each in settled(events))
    for before, after in pairwise(settled(events)):
        assert before["timestamp_ns"] <= after["timestamp_ns"]


def test_a_market_that_does_not_move_is_held_not_divided_by():
    events = list(strategies.feed([of_closes([5.0] * 80)]))
    assert {each["action"] for each in said(events)} == {"hold"}
    assert settled(events) == []


def test_the_same_candles_give_the_same_bytes():
    assert list(strategies.feed([of_closes(wave())])) == list(strategies.feed([of_closes(wave())]))


def test_the_ticks_can_be_left_out():
    events = list(strategies.feed([of_closes(wave())], prices=False))
    assert {each.topic for each in events} == {"signals", "outcomes"}


@pytest.mark.skipif(not REAL, reason=f"no real candles in {DATA}")
def test_two_years_of_real_candles_give_valid_messages():
    events = list(strategies.feed([candles.read(REAL[0])]))
    counts = {topic: sum(each.topic == topic for each in events) for topic in MODELS}
    assert counts["prices"] == 16_319
    assert counts["signals"] == 2 * (16_319 - WARMUP + 1)
    assert counts["signals"] - counts["outcomes"] == 2 * HORIZON
    for each in events[::211]:
        wire.decode(MODELS[each.topic], each.value, place=each.topic)
