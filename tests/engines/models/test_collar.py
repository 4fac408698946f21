"""A price far from the last one moves nothing until another agrees: by hand, a slow oracle, and real hours."""

import math
from copy import copy
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engines.models import bars, cascade, collar
from engines.models.collar import Collar, Ohlc, Suspect
from engines.parameters import CascadeLevels, CascadeThresholds, CascadeWeights, CollarParams, MarketParams
from streams.history import candles

MARKET = MarketParams()
SECOND_NS = 10**9
HOUR_NS = 3600 * SECOND_NS
START_NS = 480_000 * HOUR_NS
DATA = Path(__file__).parents[4] / "shared" / "data"
COINS = ("BTC", "ETH", "BNB", "ADA")


def flat(price):
    return Ohlc(price, price, price, price)


def fed(*prices, every_s=1.0, state=None, at_ns=START_NS, volatility=0.0, params=MARKET):
    """Feed flat candles; return the collar, and the prices that were accepted."""
    taken = []
    for price in prices:
        at_ns += int(every_s * SECOND_NS)
        state, judged = collar.step(state, flat(price), at_ns, volatility, params)
        taken += [] if judged.candle is None else [judged.candle.close]
    return state, taken


# -- reach, by hand ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("age_s", "volatility", "expected"),
    [
        (1, 0.0, 0.10),  # .4·√(1/3600) = .0067
        (-5, 0.0, 0.10),
        (900, 0.0, 0.20),  # .4·√¼
        (3600, 0.0, 0.40),
        (3600, 0.01, 0.40),  # 40·.01
        (3600, 0.02, 0.80),
        (3 * 3600, 0.005, 0.6928203230275509),  # .4·√3
        (4 * 3600, 0.0, 0.80),
        (400 * 3600, 0.0, 0.80),
        (3600, 0.05, 1.3862943611198906),  # 2, but ln 4 at most
        (1, 0.3, 0.2),  # 12/60
    ],
)
def test_reach_by_hand(age_s, volatility, expected):
    assert collar.reach(age_s * SECOND_NS, volatility, MARKET) == pytest.approx(expected, rel=1e-12)


# -- the life of a suspicion -------------------------------------------------------------------------------------------
def test_the_first_price_counts_at_once():
    assert fed(4.35) == (Collar(4.35, START_NS + SECOND_NS), [4.35])


def test_a_tick_of_4_35_after_43_500_moves_nothing_and_the_true_price_is_taken_at_once():
    state, taken = fed(43_500.0, 4.35)
    assert state == Collar(43_500.0, START_NS + SECOND_NS, Suspect(4.35, START_NS + 2 * SECOND_NS))
    assert taken == [43_500.0]
    state, taken = fed(43_510.0, state=state, at_ns=state.suspect.at_ns)
    assert (state.price, state.suspect, taken) == (43_510.0, None, [43_510.0])


def test_a_move_within_a_factor_of_two_is_taken_when_the_next_step_agrees():
    assert fed(100.0, 75.0, 74.0, 73.0)[1] == [100.0, 74.0, 73.0]
    assert fed(100.0, 75.0, 67.0, 60.0)[1] == [100.0], "each .11 from the one before"
    assert fed(100.0, 75.0, 100.0, 75.0, 100.0)[1] == [100.0, 100.0, 100.0]


def test_a_move_beyond_a_factor_of_two_has_to_last_a_minute():
    assert fed(100.0, *[10.0] * 60)[1] == [100.0]
    assert fed(100.0, *[10.0] * 61)[1] == [100.0, 10.0]
    assert fed(100.0, 10.0, 10.5, every_s=3600)[1] == [100.0, 10.5]
    assert fed(100.0, 10.0, 10.0, every_s=60)[1] == [100.0, 10.0]


def test_a_price_does_not_agree_with_itself():
    state, _ = fed(100.0, 75.0)
    assert fed(75.0, every_s=0, state=state, at_ns=state.suspect.at_ns) == (state, [])


def test_the_minute_begins_anew_where_the_suspect_changes():
    assert fed(100.0, *[10.0] * 50, *[12.0] * 60)[1] == [100.0]
    assert fed(100.0, *[10.0] * 50, *[12.0] * 61)[1] == [100.0, 12.0]


def test_what_the_suspect_reached_is_in_the_bar_that_takes_it():
    state, _ = fed(100.0, 72.0)
    _, judged = collar.step(state, flat(75.0), START_NS + 3 * SECOND_NS, 0.0, MARKET)
    assert judged.candle == Ohlc(75.0, 75.0, 72.0, 75.0)


@pytest.mark.parametrize(
    ("candle", "after", "clipped"),
    [
        (Ohlc(100.0, 1_000.0, 99.0, 101.0), Ohlc(100.0, 101.0, 99.0, 101.0), 1),
        (Ohlc(100.0, 102.0, 1e-4, 101.0), Ohlc(100.0, 102.0, 100.0, 101.0), 1),
        (Ohlc(10.0, 101.0, 10.0, 100.5), Ohlc(100.5, 101.0, 100.5, 100.5), 2),
        (Ohlc(100.0, 110.0, 91.0, 101.0), Ohlc(100.0, 110.0, 91.0, 101.0), 0),  # .0953 and .0943
        (
            Ohlc(100.0, 120.0, 91.0, 109.0),
            Ohlc(100.0, 120.0, 91.0, 109.0),
            0,
        ),  # .182 of the last, .096 of the close
    ],
)
def test_extremes_out_of_reach_of_last_and_close_become_those_of_open_and_close(candle, after, clipped):
    _, judged = collar.step(Collar(100.0, START_NS), candle, START_NS + SECOND_NS, 0.0, MARKET)
    assert (judged.candle, judged.clipped) == (after, clipped)


def test_extremes_whose_volatility_somebody_else_knows_are_held_against_the_widest_reach():
    for high, after in ((390.0, 390.0), (405.0, 101.0)):
        _, judged = collar.step(
            Collar(100.0, START_NS), Ohlc(100.0, high, 99.0, 101.0), START_NS + SECOND_NS, None, MARKET
        )
        assert judged.candle == Ohlc(100.0, after, 99.0, 101.0), "405 is beyond 4 × 101"
    assert fed(100.0, 75.0, volatility=None)[1] == [100.0]


@pytest.mark.parametrize("bad", [{"min_reach": 2.0}, {"max_ratio": 1.0}, {"doubt_s": -1.0}])
def test_settings_without_sense_are_refused(bad):
    with pytest.raises(ValueError, match=r"min_reach|max_ratio|doubt_s"):
        CollarParams(**bad)


# -- the oracle --------------------------------------------------------------------------------------------------------
def slowly(rows):
    """Read the rule of the specification word by word over flat (price, seconds, σ); yield whether each is accepted."""
    last, last_s, suspect, suspect_s = None, None, None, None
    for price, second, sigma in rows:
        if last is None:
            last, last_s = price, second
            yield True
            continue
        age = min(max(second - last_s, 0) / 3600, 4)
        far = min(max(0.10, max(0.40, 40 * sigma) * math.sqrt(age)), math.log(4))
        move = abs(math.log(price) - math.log(last))
        agrees = suspect is not None and abs(math.log(price) - math.log(suspect)) <= 0.10
        late = agrees and second - suspect_s >= (60 if move > math.log(2) else 1)
        if move <= far or late:
            last, last_s, suspect = price, max(last_s, second), None
            yield True
        else:
            if not agrees:
                suspect, suspect_s = price, second
            yield False


prices = st.one_of(st.sampled_from([100.0, 101.0, 75.0, 72.0, 10.0, 10.4, 390.0, 1000.0]), st.floats(1e-6, 1e6))
paths = st.lists(
    st.tuples(prices, st.sampled_from([1, 1, 30, 60, 3600, 20_000]), st.sampled_from([0.0, 0.004, 0.03])), max_size=30
)


@given(paths)
def test_the_rule_is_that_of_the_slow_reading(path):
    second, rows = 0, []
    for price, pause, sigma in path:
        second += pause
        rows.append((price, second, sigma))
    state, found = None, []
    for price, at_s, sigma in rows:
        state, judged = collar.step(state, flat(price), START_NS + at_s * SECOND_NS, sigma, MARKET)
        found.append(judged.candle is not None)
    assert found == list(slowly(rows))


@given(
    st.floats(1e-9, 1e9),
    st.one_of(st.floats(1e-12, 0.9), st.floats(1.12, 1e12)),
    st.floats(0.96, 1.04),
    st.sampled_from([1, 60]),
)
@example(43_500.0, 1e-4, 1.0, 1)
def test_one_slip_of_any_size_moves_nothing_and_the_true_price_is_taken_at_once(true, slip, then, every_s):
    before, _ = fed(true, true)
    during, taken = fed(true * slip, every_s=every_s, state=before, at_ns=before.at_ns)
    assert taken == []
    assert during[:2] == before[:2]
    after, taken = fed(true * then, every_s=every_s, state=during, at_ns=during.suspect.at_ns)
    assert taken == [true * then]
    assert after.suspect is None


@given(st.floats(1e-9, 1e9), st.floats(0.5, 2.0), st.floats(0.5, 2.0), st.floats(0.5, 2.0), st.floats(0.0, 0.1))
def test_nothing_beyond_the_smallest_reach_is_called_near(last, move, up, down, sigma):
    close = last * move
    high, low = close * max(up, 1.0), close * min(down, 1.0)
    if collar.is_near(last, high, low, MARKET):
        assert max(abs(math.log(high / last)), abs(math.log(low / last))) <= 0.10 + 1e-12
    _, judged = collar.step(Collar(last, START_NS), Ohlc(close, high, low, close), START_NS, sigma, MARKET)
    if judged.candle is not None:
        assert judged.candle.low <= judged.candle.open <= judged.candle.high
        assert judged.candle.low <= judged.candle.close <= judged.candle.high


# -- real hours --------------------------------------------------------------------------------------------------------
class Hour(NamedTuple):
    candle: Ohlc
    end_ns: int
    coins: float


@cache
def hours(coin):
    path = DATA / f"{coin}USDT_1h_2020-08_2022-06.csv.gz"
    if not path.exists():
        pytest.skip(f"real market data is absent: no {path.name} in ../shared/data beside the project")
    return [
        Hour(Ohlc(row.open, row.high, row.low, row.close), row.open_ns + HOUR_NS, row.volume_coins)
        for row in candles.read(path).rows
    ]


class World:
    """One symbol as sizing keeps it, hour by hour, with the collar on."""

    def __init__(self):
        self.bars, self.suspect, self.clipped = None, None, 0

    def step(self, candle, end_ns, coins=0.0):
        """Take one candle; return whether it was accepted."""
        before = self.bars and Collar(self.bars.last_price, self.bars.last_ns, self.suspect)
        sigma = math.sqrt(self.bars.variance or 0.0) if self.bars else 0.0
        after, judged = collar.step(before, candle, end_ns, sigma, MARKET)
        self.suspect = after.suspect
        if judged.candle is None:
            return False
        self.clipped += judged.clipped
        self.bars = bars.fold(self.bars, *judged.candle, coins, end_ns, MARKET)
        return True


@pytest.mark.parametrize("coin", COINS)
def test_no_real_hour_is_rejected_or_clipped_so_each_cascade_is_acted_on_as_without_a_collar(coin):
    """Hour by hour the bars are those that test_cascade.py judges: the same scores, the same levels."""
    world, plain = World(), None
    for hour in hours(coin):
        assert world.step(*hour), hour
        plain = bars.fold(plain, *hour.candle, hour.coins, hour.end_ns, MARKET)
        assert world.bars == plain
    assert world.clipped == 0


SLIPS = {"10 ×": 10.0, "÷ 10": 0.1, "100 ×": 100.0, "2 ×": 2.0}
OTHER = {"BTC": "ETH", "ETH": "BNB", "BNB": "ADA", "ADA": "BTC"}


class Tries(NamedTuple):
    """What became of one kind of slip: how many were tried and caught, and after how many the true price counted."""

    tried: int
    caught: int
    taken: int


@cache
def slipped(coin, ahead_ns):
    """Put each kind of slip before every 77th hour, ahead_ns after the last one or, with 0, in its place."""
    world, found = World(), hours(coin)
    others = {hour.end_ns: hour.candle.close for hour in hours(OTHER[coin])}
    tries = {}
    for number, hour in enumerate(found[:-1]):
        if number % 77 == 76:
            close, at_ns = hour.candle.close, world.bars.last_ns + ahead_ns if ahead_ns else hour.end_ns
            wrong = {name: factor * close for name, factor in SLIPS.items()}
            wrong |= {"1e-4": 1e-4, "swapped": others.get(hour.end_ns, others[min(others)])}
            for name, price in wrong.items():
                fork = copy(world)
                caught = not fork.step(flat(price), at_ns)
                assert not caught or fork.bars is world.bars
                taken = fork.step(*(hour if ahead_ns else found[number + 1]))
                before = tries.get(name, Tries(0, 0, 0))
                tries[name] = Tries(before.tried + 1, before.caught + caught, before.taken + (caught and taken))
        world.step(*hour)
    return tries


@pytest.mark.parametrize("ahead_ns", [0, SECOND_NS], ids=["hourly", "at 1 s"])
@pytest.mark.parametrize("name", ["10 ×", "÷ 10", "100 ×", "1e-4", "swapped"])
@pytest.mark.parametrize("coin", COINS)
def test_slips_on_real_hours_are_caught_and_the_true_price_is_taken_at_once(coin, name, ahead_ns):
    assert slipped(coin, ahead_ns)[name] == Tries(211, 211, 211)


def test_a_doubled_price_is_mostly_caught_hourly_and_always_at_a_second():
    hourly = [slipped(coin, 0)["2 ×"] for coin in COINS]
    assert sum(each.tried for each in hourly) == 844
    assert sum(each.caught for each in hourly) >= 0.92 * 844, hourly
    assert [slipped(coin, SECOND_NS)["2 ×"] for coin in COINS] == [Tries(211, 211, 211)] * 4


def worst(coin):
    """Return the hour that fell most, open to close, and the close before it."""
    found = hours(coin)
    place = min(range(1, len(found)), key=lambda n: found[n].candle.close / found[n].candle.open)
    return found[place].candle


@pytest.mark.parametrize("coin", COINS)
@pytest.mark.parametrize(("squeezed_s", "off_s"), [(1, 1), (5, 5), (60, 0)])
def test_the_worst_real_hours_squeezed_into_seconds_get_through(coin, squeezed_s, off_s):
    """Sizing at steps of a second: how long its price is more than 1 % off, of any step after the fall began."""
    candle = worst(coin)
    state = Collar(candle.open, START_NS)
    off = 0
    for second in range(1, squeezed_s + 120):
        done = min(second / squeezed_s, 1.0)
        price = candle.open * (candle.close / candle.open) ** done
        state, _ = collar.step(state, flat(price), START_NS + second * SECOND_NS, 0.0, MARKET)
        off += abs(math.log(state.price / price)) > 0.01
    assert off <= off_s


def test_an_hour_of_minus_25_percent_is_acted_on_at_once():
    """A calm market of 48 hours, σ .5 %; then one that falls by a quarter."""
    world, latch = World(), None
    closes = [100.0 * math.exp(0.005 * (-1) ** n) for n in range(48)] + [75.0]
    for number, close in enumerate(closes):
        opened = closes[number - 1] if number else close
        candle = Ohlc(opened, max(opened, close), min(opened, close), close)
        end_ns = START_NS + number * HOUR_NS
        assert world.step(candle, end_ns, 10.0)
        z, ratio = bars.excursion(world.bars, 1, MARKET), bars.volume_ratio(world.bars, MARKET)
        parts = cascade.components(None, z, ratio, 1, CascadeThresholds(), CascadeLevels())
        latch = cascade.step(latch, cascade.score(parts, CascadeWeights()), end_ns, CascadeLevels())
    assert latch.level >= 2, "REDUCE_75"
