import hashlib
from collections import Counter
from functools import cache
from itertools import groupby

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import wire
from schemas.cascade import CascadeIndicators
from schemas.outcome import TradeOutcome
from schemas.price import PriceTick
from schemas.signal import TacticalSignal
from streams.history import simulation
from streams.history.simulation import CALIBRATION, COINS, STEPS_PER_HOUR, SYMBOLS, Simulation

MODELS = {
    "prices": PriceTick,
    "signals": TacticalSignal,
    "outcomes": TradeOutcome,
    "cascade-indicators": CascadeIndicators,
}
HOUR_NS = 3_600 * 10**9
SEEDS = range(6)


@cache
def demo(seed=7):
    return Simulation(seed)


def fields(events, topic):
    return [orjson.loads(each.value) for each in events if each.topic == topic]


def digest(one):
    events = [*one.history(), *one.live()]
    return hashlib.sha256(b"".join(b"%d%s%s%s" % (t, p.encode(), k, v) for t, p, k, v in events)).hexdigest()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    assert digest(Simulation(7)) == digest(demo()) != digest(Simulation(8))


@pytest.mark.parametrize("phase", ["history", "live"])
def test_every_message_is_valid_and_none_lies_ahead_of_its_moment(phase):
    for each in getattr(demo(), phase)():
        message = wire.decode(MODELS[each.topic], each.value, place=each.topic)
        assert message.timestamp_ns <= each.time_ns


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 2))
@settings(max_examples=10, deadline=None)
def test_events_come_in_order_and_each_phase_keeps_to_its_time(seed, hours, weeks):
    one = Simulation(seed, hours, weeks)
    history, live = list(one.history()), list(one.live())
    for events in (history, live):
        times = [each.time_ns for each in events]
        assert times == sorted(times)
    assert one.history_start_ns < history[0].time_ns
    assert history[-1].time_ns <= one.live_start_ns < live[0].time_ns
    assert live[-1].time_ns <= one.live_end_ns == one.live_start_ns + hours * HOUR_NS


def test_an_hour_brings_twenty_signals_and_a_tick_of_each_coin_every_five_minutes():
    signals, ticks = fields(demo().live(), "signals"), fields(demo().live(), "prices")
    per_hour = Counter((each["timestamp_ns"] - demo().live_start_ns) // HOUR_NS for each in signals)
    assert per_hour == dict.fromkeys(range(40), 20)
    for symbol in SYMBOLS:
        times = [each["timestamp_ns"] for each in ticks if each["symbol"] == symbol]
        assert np.all(np.diff(times) == 300 * 10**9)


def test_every_cell_speaks_every_half_hour():
    cells = Counter((each["strategy_id"], each["symbol"]) for each in fields(demo().live(), "signals"))
    assert cells == {(strategy, symbol): 80 for strategy in CALIBRATION for symbol in SYMBOLS}


def test_no_signal_id_is_used_twice():
    names = [each["signal_id"] for phase in (demo().history(), demo().live()) for each in fields(phase, "signals")]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("phase", ["history", "live"])
def test_an_outcome_settles_its_signal_an_hour_later_by_the_ticks(phase):
    events = list(getattr(demo(), phase)())
    signals = {each["signal_id"]: each for each in fields(events, "signals")}
    ticks = {}
    for each in fields(events, "prices"):
        ticks.setdefault(each["symbol"], []).append((each["timestamp_ns"], each["price"]))

    def price(symbol, time_ns):
        known = [value for at_ns, value in ticks[symbol] if at_ns <= time_ns]
        return known[-1] if known else None

    checked = 0
    for outcome in fields(events, "outcomes")[::7]:
        signal = signals[outcome["signal_id"]]
        assert outcome["timestamp_ns"] == signal["timestamp_ns"] + HOUR_NS
        assert outcome["side"] == (1 if signal["action"].endswith("buy") else -1)
        before = price(outcome["symbol"], signal["timestamp_ns"])
        if before is not None:
            realised = price(outcome["symbol"], outcome["timestamp_ns"]) / before - 1.0
            assert outcome["realized_return"] == pytest.approx(realised, abs=2e-5)
            checked += 1
    assert checked > 90


def test_history_is_hourly_candles_without_a_gap():
    ticks = fields(demo().history(), "prices")
    for symbol in SYMBOLS:
        times = [each["timestamp_ns"] for each in ticks if each["symbol"] == symbol]
        assert len(times) == 4 * 168
        assert np.all(np.diff(times) == HOUR_NS)


def test_history_leaves_no_cell_cold():
    outcomes = Counter((each["strategy_id"], each["symbol"]) for each in fields(demo().history(), "outcomes"))
    assert len(outcomes) == len(CALIBRATION) * len(SYMBOLS)
    assert min(outcomes.values()) >= 40


def test_calibration_is_what_it_is_said_to_be():
    x, z = {name: [] for name in CALIBRATION}, {name: [] for name in CALIBRATION}
    for seed in range(8):
        events = list(Simulation(seed, hours=1, weeks=12).history())
        signals = {each["signal_id"]: each for each in fields(events, "signals")}
        for outcome in fields(events, "outcomes"):
            signal = signals[outcome["signal_id"]]
            claim = signal["confidence"] * signal["expected_return"] / signal["predicted_volatility"]
            x[signal["strategy_id"]].append(claim)
            z[signal["strategy_id"]].append(
                outcome["side"] * outcome["realized_return"] / signal["predicted_volatility"]
            )
    for name, true in CALIBRATION.items():
        claims, came = np.array(x[name]), np.array(z[name])
        slope = (claims @ came) / (claims @ claims)
        assert abs(slope - true) < 3.0 / np.sqrt(claims @ claims), (name, slope)


def test_coins_move_together_and_have_fat_tails():
    returns = demo().paths.returns
    correlations = np.corrcoef(returns.T)[np.triu_indices(len(COINS), 1)]
    assert 0.5 < correlations.min() <= correlations.max() < 0.85
    z = returns / demo().paths.volatility
    assert np.mean(z**4) / np.mean(z**2) ** 2 > 4.0


def test_regimes_change_and_the_crisis_is_the_cascades():
    one = demo()
    live = [key for key, _ in groupby(one.paths.regimes[one.first_live :])]
    assert len(live) >= 5
    crisis = np.flatnonzero(one.paths.regimes == simulation.CRISIS)
    assert crisis[0] == one.fall_step
    assert len(crisis) == simulation.CRISIS_HOURS * STEPS_PER_HOUR


@pytest.mark.parametrize("seed", SEEDS)
def test_the_cascade_takes_fifteen_to_twenty_percent_within_one_bar_on_heavy_volume(seed):
    one = demo(seed)
    bars = {symbol: [] for symbol in SYMBOLS}
    for each in fields(one.live(), "prices"):
        if one.cascade_ns < each["timestamp_ns"] <= one.cascade_ns + HOUR_NS:
            bars[each["symbol"]].append(each)
    assert one.cascade_ns % HOUR_NS == 0
    for k, coin in enumerate(COINS):
        before = one.paths.prices[one.fall_step, k]
        day = one.paths.volumes[one.fall_step - 288 : one.fall_step, k].sum() / 24.0
        low = min(each["price"] for each in bars[coin.symbol]) / before - 1.0
        assert low == pytest.approx(-coin.drop, abs=0.05)
        assert sum(each["volume"] for each in bars[coin.symbol]) / day > 8.0


@pytest.mark.parametrize("seed", SEEDS)
def test_price_and_volume_alone_call_for_an_exit_in_the_first_hour(seed):
    """Methods 5 by hand: z on the running bar, volume against the day before, weights .25 and .15, cube root."""
    one = demo(seed)
    hourly = np.log(one.paths.prices[one.fall_step % STEPS_PER_HOUR : one.fall_step + 1 : STEPS_PER_HOUR])
    for k in range(len(COINS)):
        variance = 0.0
        for r in np.diff(hourly[:, k]):
            clipped = min(abs(r), 5.0 * variance**0.5) if variance else abs(r)
            variance = 0.97 * variance + 0.03 * clipped**2 if variance else clipped**2
        quote = one.paths.volumes[:, k] * one.paths.prices[1:, k]
        day = quote[one.fall_step - 288 : one.fall_step].sum() / 24.0
        worst = 0.0
        for steps in range(1, STEPS_PER_HOUR + 1):
            running = slice(one.fall_step, one.fall_step + steps)
            low = one.paths.prices[one.fall_step + 1 : one.fall_step + steps + 1, k].min()
            z = -np.log(low / one.paths.prices[one.fall_step, k]) / variance**0.5
            y = np.array([z / 5.0, quote[running].sum() / day / 5.0 if z >= 2.5 else 0.0])
            h = y**4 / (1.0 + y**4)
            worst = max(worst, ((0.25 * h[0] ** 3 + 0.15 * h[1] ** 3) / 0.40) ** (1 / 3))
        assert worst > 0.8, (COINS[k].symbol, worst)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_informed_are_long_when_the_cascade_comes(seed):
    one = demo(seed)
    last = {}
    for each in fields(one.live(), "signals"):
        if each["timestamp_ns"] < one.cascade_ns and each["strategy_id"] == "informed":
            last[each["symbol"]] = each
    assert set(last) == set(SYMBOLS)
    for each in last.values():
        assert each["action"].endswith("buy")
        assert each["expected_return"] > 0.5 * each["predicted_volatility"]


def test_in_the_cascade_the_feeds_turn_against_longs_and_calm_down_again():
    one = demo()
    readings = [each for each in fields(one.live(), "cascade-indicators") if each["symbol"] == "SOL-USD"]
    worst = min(readings, key=lambda each: each["oi_change_pct"])
    assert one.cascade_ns < worst["timestamp_ns"] <= one.cascade_ns + HOUR_NS
    assert worst["oi_change_pct"] < -0.2
    assert worst["funding_rate"] > 0.003
    assert worst["exchange_netflow_zscore"] > 2.0
    assert worst["onchain_whale_pressure"] > 0.7
    calm = [each for each in readings if abs(each["timestamp_ns"] - one.cascade_ns) > 12 * HOUR_NS]
    assert max(each["funding_rate"] for each in calm) < 0.0005
    assert min(each["oi_change_pct"] for each in calm) > -0.08
