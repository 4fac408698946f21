"""Bars of all symbols: previous ticks, gathered by time, against a slow computation from the ticks themselves."""

from itertools import product
from math import log

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import PRICES, START_NS, SYMBOLS, TRUSTING, Driver, control, tick

from engines.models import correlation
from engines.parameters import DecisionParams, tree_hash
from engines.pipeline import cache
from engines.state.partition import GATHERED

SECOND_NS = 10**9
MINUTE_NS = 60 * SECOND_NS
LEARNING = {"volatility_decay": 0.9, "volatility_clip": 4.0, "warmup_bars": 2}


def params(**market):
    tree = TRUSTING.model_dump()
    tree["market"] |= {"bar_s": 60, **market}
    return DecisionParams.model_validate(tree)


def world(**given_):
    return Driver(params(), partitions=1, **given_)


def state_of(driver, partition=0):
    return driver.processors["journal", partition][0].state


def quote(driver, symbol, price):
    driver.publish("prices", tick(driver.now_ns, symbol, price), key=symbol.encode())


def alerts(driver):
    found = [orjson.loads(record.value) for record in driver.read("alerts")]
    return [each for each in found if each["kind"] == "correlation"]


def slow(ticks, closed_to):
    """Return each bar's log returns by symbol, from (time, symbol, price): its last price over the last one before."""
    lasts = {}
    for at_ns, symbol, price in ticks:
        lasts.setdefault(symbol, {})[(at_ns - 1) // MINUTE_NS] = price
    bars = {}
    for symbol, closes in lasts.items():
        earlier = None
        for bar in sorted(closes):
            if earlier is not None and bar <= closed_to:
                bars.setdefault(bar, {})[symbol] = log(closes[bar] / earlier)
            earlier = closes[bar]
    return bars


def pairs(bars, symbols, decay=0.97, clip=6.0):
    """Return variances, products and counts of pairs as they stand after these bars: one plain loop for each."""
    variance, cross, count = dict.fromkeys(symbols, 0.0), {}, {}
    for bar in sorted(bars):
        row, z = bars[bar], {}
        for symbol, change in row.items():
            before = variance[symbol]
            if before:
                z[symbol] = float(np.clip(change / np.sqrt(before), -clip, clip))
            variance[symbol] = decay * before + (1 - decay) * change * change if before else change * change
        for (one, its), (other, others) in product(z.items(), repeat=2):
            cross[one, other] = decay * cross.get((one, other), 0.0) + (1 - decay) * its * others
            count[one, other] = count.get((one, other), 0) + 1
    return variance, cross, count


def ewma(bars, symbols):
    """Return the correlations that numpy finds: products of standardised returns, averaged over the bars of a pair."""
    _, cross, _ = pairs(bars, symbols)
    return np.array(
        [[cross[i, j] / np.sqrt(cross[i, i] * cross[j, j]) if i != j else 1.0 for j in symbols] for i in symbols]
    )


# -- what a bar is ---------------------------------------------------------------------------------------------------
# All moves are within the collar: beyond it a tick alone is suspect, and in no bar.
quotes = st.lists(
    st.tuples(st.integers(1, 40), st.sampled_from(SYMBOLS), st.floats(0.955, 1.045).map(lambda x: round(x, 4))),
    min_size=1,
    max_size=40,
)


@settings(max_examples=25)
@given(quotes)
def test_the_bars_are_those_of_the_last_ticks_whoever_is_missing(script):
    driver, told = world(), []

    def say(symbol, factor):
        quote(driver, symbol, PRICES[symbol] * factor)
        told.append((driver.now_ns, symbol, PRICES[symbol] * factor))
        driver.run()

    for wait_s, symbol, factor in script:
        driver.advance(float(wait_s))
        say(symbol, factor)
    for _ in range(3):
        driver.advance(75.0)
        say("BTC-USD", 1.0)
        driver.advance(2.0)
    found = state_of(driver)
    bars = slow(told, found.closed_bar)
    names = sorted({symbol for row in bars.values() for symbol in row})
    variance, cross, count = pairs(bars, names)
    upper = [(one, other) for place, one in enumerate(names) for other in names[place:]]
    assert found.moments.symbols == tuple(names)
    assert found.moments.bar_end_ns == max(((bar + 1) * MINUTE_NS for bar in bars), default=0)
    assert found.moments.variances.tolist() == pytest.approx([variance[name] for name in names])
    assert found.moments.cross.tolist() == pytest.approx([cross.get(pair, 0.0) for pair in upper])
    assert found.moments.bars.tolist() == [count.get(pair, 0) for pair in upper]


def test_correlations_of_a_common_factor_are_those_of_numpy():
    driver, told = world(), []
    chance = np.random.default_rng(3)
    paths = dict.fromkeys(SYMBOLS, 0.0)
    for _ in range(80):
        shared = chance.normal(0, 0.004)
        for symbol in SYMBOLS:
            paths[symbol] += shared + chance.normal(0, 0.003)
            price = PRICES[symbol] * float(np.exp(paths[symbol]))
            quote(driver, symbol, price)
            told.append((driver.now_ns, symbol, price))
        driver.advance(60.0)
    state = state_of(driver)
    found = correlation.raw(state.moments, state.params.risk_management.correlation)
    expected = ewma(slow(told, state.closed_bar), SYMBOLS)
    assert state.moments.symbols == SYMBOLS
    assert found == pytest.approx(expected, abs=1e-9)
    assert 0.4 < found[0, 1] < 0.95


def test_a_bar_waits_ten_seconds_for_the_others_and_no_longer():
    driver = world()
    driver.advance(1.0 + 60.0 - driver.now_ns % MINUTE_NS / SECOND_NS)
    for price in (1.0, 1.01):
        for symbol in SYMBOLS[:2]:
            quote(driver, symbol, PRICES[symbol] * price)
        driver.advance(60.0)
    ended = driver.now_ns // MINUTE_NS - 1
    quote(driver, "BTC-USD", PRICES["BTC-USD"])
    driver.advance(2.0)
    assert state_of(driver).closed_bar < ended
    assert list(state_of(driver).gathered[ended]) == ["BTC-USD"]
    driver.advance(10.0)
    quote(driver, "BTC-USD", PRICES["BTC-USD"])
    driver.advance(2.0)
    assert state_of(driver).closed_bar == ended
    assert state_of(driver).gathered == {}
    assert state_of(driver).moments.symbols == SYMBOLS[:2]


def test_a_symbol_that_comes_too_late_is_missing_in_its_bar_and_blocks_nobody():
    driver = Driver(params(), partitions=3)
    march(driver, 30)
    state = state_of(driver)
    sources = {symbol: state.markets.get((symbol,)).source_partition for symbol in SYMBOLS[:2]}
    assert len(set(sources.values())) == 2, "they come by partitions of their own"
    before = state.moments.bars.tolist()
    then_ns = driver.now_ns
    for wait_s in (60.0, 15.0):
        quote(driver, "BTC-USD", PRICES["BTC-USD"] * 1.001)
        driver.advance(wait_s)
    assert [now - was for was, now in zip(before, state.moments.bars.tolist(), strict=True)] == [2, 1, 1], (
        "the bar that ended in the march is of both, the one after of BTC alone"
    )
    late = tick(then_ns + SECOND_NS, "ETH-USD", PRICES["ETH-USD"] * 1.1)
    driver.publish("prices", late, key=b"ETH-USD")
    driver.advance(2.0)
    assert state.moments.bars.tolist() == [before[0] + 2, before[1] + 1, before[2] + 1]
    assert state.markets.get(("ETH-USD",)).bars.last_price == PRICES["ETH-USD"] * 1.1
    for _ in range(2):
        for symbol in SYMBOLS[:2]:
            quote(driver, symbol, PRICES[symbol] * 1.1)
        driver.advance(75.0)
    assert state.moments.bars[1] > before[1] + 1, "from the next bar on it is there again"


# -- state -----------------------------------------------------------------------------------------------------------
def test_what_is_gathered_and_learnt_survives_a_crash_at_any_moment():
    straight, broken = world(), world()
    for number in range(30):
        for driver in (straight, broken):
            for place, symbol in enumerate(SYMBOLS):
                quote(driver, symbol, PRICES[symbol] * (1.0 + 0.002 * ((number * (place + 2)) % 5 - 2)))
            driver.advance(23.0)
        if number % 3 == 0:
            broken.checkpoint()
        broken.crash()
    one, other = state_of(straight), state_of(broken)
    assert one.closed_bar == other.closed_bar
    assert one.gathered == other.gathered
    assert one._parts == other._parts
    assert one.encode("correlations", (GATHERED,)) == other.encode("correlations", (GATHERED,))
    assert np.array_equal(cache.correlations(one).matrix, cache.correlations(other).matrix)


@pytest.mark.parametrize(("changed", "anew"), [({"bar_s": 120}, True), ({"step_s": 2}, True), (LEARNING, False)])
def test_bars_of_another_width_begin_anew_and_no_others(changed, anew):
    driver = world()
    driver.advance(1.0 + 60.0 - driver.now_ns % MINUTE_NS / SECOND_NS)
    for price in (1.0, 1.01, 0.99, 1.02):
        quote(driver, "BTC-USD", PRICES["BTC-USD"] * price)
        driver.advance(60.0)
    quote(driver, "BTC-USD", PRICES["BTC-USD"])
    driver.advance(2.0)
    state = state_of(driver)
    assert state.gathered
    before = (state.closed_bar, state.markets.get(("BTC-USD",)))
    assert before[0] > 0
    wanted = params(**changed)
    payload = {"base_hash": state.settings_hash, "hash": tree_hash(wanted), "tree": wanted.model_dump()}
    driver.publish("control", control(driver.now_ns, "settings", payload))
    driver.run()
    if anew:
        assert (state.closed_bar, state.gathered, state.markets.get(("BTC-USD",)).bars) == (-1, {}, None)
    else:
        assert (state.closed_bar, state.markets.get(("BTC-USD",))) == before
    assert state.moments.symbols == ("BTC-USD",)


# -- alerts ----------------------------------------------------------------------------------------------------------
def march(driver, bars, shift=0):
    for number in range(shift, shift + bars):
        for symbol in SYMBOLS[:2]:
            quote(driver, symbol, PRICES[symbol] * (1.0 + 0.004 * (number * 3 % 7 - 3)))
        driver.advance(60.0)


def test_a_pair_that_moves_as_one_is_told_of_once_and_by_one_partition():
    driver = Driver(params(), partitions=3)
    march(driver, 60)
    [found] = alerts(driver)
    assert found["subject"] == "BTC-USD/ETH-USD"
    assert found["value"] > found["threshold"] == 0.7
    assert found["journal"]["partition"] == 0
    march(driver, 20, shift=60)
    assert len(alerts(driver)) == 1
    matrices = [cache.correlations(state_of(driver, partition)).matrix for partition in range(3)]
    assert all(np.array_equal(matrices[0], each) for each in matrices)


def test_returns_given_to_the_library_are_a_bar_of_their_own():
    from streams.library.phases import Layer3Phase2Portfolio  # noqa: PLC0415 (only here)

    library = Layer3Phase2Portfolio(enable_metrics=False)
    rows = np.random.default_rng(5).normal(0, 0.01, (40, 2))
    for number, (one, other) in enumerate(rows.tolist()):
        library.update_correlations({"A": one, "B": 0.5 * one + other}, START_NS + number * MINUTE_NS)
    state = library._core.state
    bars = {number: {"A": one, "B": 0.5 * one + other} for number, (one, other) in enumerate(rows.tolist())}
    found = correlation.raw(state.moments, state.params.risk_management.correlation)
    assert found == pytest.approx(ewma(bars, ("A", "B")), abs=1e-12)
