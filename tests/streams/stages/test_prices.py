"""Prices that come too late, too far off, or half of them bad: what counts, what is refused, and what is told."""

import itertools
from collections import Counter
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import SECOND_NS, START_NS, Driver, priced, signal

from engines.models import collar
from engines.models.collar import Collar, Ohlc
from engines.parameters import DecisionParams
from schemas.alert import Alert
from schemas.dead_letter import original, read
from streams.history import candles
from streams.journal.dead_letters import LETTERS_BYTES_MAX
from streams.processing.memory_cluster import Stored
from streams.stages.lateness import NEVER_NS, QUIET_NS, WINDOW_NS, Lateness
from streams.stages.market import LATENESS, OPEN, QUOTE, TABLE, MarketFold

PARAMS = DecisionParams()
SLIP = 4.35
DATA = Path(__file__).parents[4] / "shared" / "data"


def quote(driver, price, symbol="BTC-USD", ahead_s=0.0):
    return {"symbol": symbol, "price": price, "timestamp_ns": driver.now_ns + int(ahead_s * SECOND_NS)}


def alerts(driver, *kinds):
    told = [orjson.loads(record.value) for record in driver.read("alerts")]
    assert all(Alert.model_validate(each) for each in told)
    return [each for each in told if each["kind"] in kinds]


def bars_of(driver, symbol):
    return driver.processors["journal", 0][0].state.markets.get((symbol,)).bars


# -- cases/starve.py ---------------------------------------------------------------------------------------------------
def second(driver, ahead_s):
    driver.publish("prices", quote(driver, 43_500.0, ahead_s=ahead_s))
    driver.publish("prices", quote(driver, 2_300.0, "ETH-USD"))
    driver.advance(1.0)


def starved(seconds, ahead_s=2.0):
    """Two coins share a partition of prices; after 5 s the clock of one feed is ahead."""
    driver = Driver(partitions=1)
    for _ in range(5):
        second(driver, 0.0)
    fields = {"strategy_id": "m", "risk_score": 0.0, "horizon_s": 86_400.0}
    driver.publish("signals", signal(driver.now_ns, symbol="ETH-USD", **fields))
    driver.run()
    for _ in range(seconds):
        second(driver, ahead_s)
    driver.publish("signals", signal(driver.now_ns, symbol="BTC-USD", **fields))
    driver.run()
    return driver


def test_a_neighbours_clock_that_is_ahead_takes_no_price_away():
    driver = starved(130)
    first, last = driver.allocations()
    assert first["targets"]["ETH-USD"]["quantity"] > 1.0
    assert last["targets"]["ETH-USD"]["quantity"] == first["targets"]["ETH-USD"]["quantity"]
    assert last["targets"]["BTC-USD"]["quantity"] > 0.0
    assert driver.read("prices.dlq") == []
    assert bars_of(driver, "ETH-USD").steps == bars_of(driver, "BTC-USD").steps


def test_a_clock_that_stays_ahead_is_told_of_once():
    (told,) = alerts(starved(130), "clock_skew")
    assert (told["subject"], told["value"], told["threshold"]) == ("prices/0: ETH-USD", 2.0, 1.0)
    assert told["alert_id"].startswith("prices-0-")


def test_the_steps_of_a_starved_partition_still_only_rise():
    driver = starved(30)
    steps = [orjson.loads(orjson.loads(record.value)["value"]) for record in driver.read("journal")]
    numbers = [body["step"] for body in steps if "step" in body]
    assert all(before < after for before, after in itertools.pairwise(numbers))


def test_a_small_jitter_is_not_told_of():
    assert alerts(starved(200, 0.4), "clock_skew", "late_prices") == []


# -- cases/one_bad_tick.py ---------------------------------------------------------------------------------------------
def test_one_bad_tick_of_a_message_is_one_dead_letter_and_its_neighbours_count():
    driver = Driver(partitions=1)
    for number in range(130):
        luna = 0.0 if number > 2 else 1e-4
        driver.publish("prices", {"ticks": [quote(driver, 2_300.0, "ETH-USD"), quote(driver, luna, "LUNA-USD")]})
        driver.advance(1.0)
    driver.publish("signals", signal(driver.now_ns, symbol="ETH-USD"))
    driver.run()
    (allocation,) = driver.allocations()
    assert allocation["targets"]["ETH-USD"]["notional_usd"] > 1_000.0
    assert allocation["diagnostics"]["price"] == 2_300.0
    letters = driver.read("prices.dlq")
    assert len(letters) == 127
    told = [read(letter.headers) for letter in letters]
    assert {(each.field, each.tick, each.code) for each in told} == {("ticks[1].price", 1, "out_of_range")}
    assert orjson.loads(letters[0].value)["ticks"][0]["symbol"] == "ETH-USD"
    assert all(original(letter.headers) == [] for letter in letters)


class Bench:
    """A fold of one partition, its clock at the start."""

    def __init__(self):
        self.notes = []
        self.fold = MarketFold(3, 1, lambda: PARAMS, lambda: START_NS, lambda *note: self.notes.append(note))
        self.offset = -1

    def take(self, *ticks, headers=()):
        self.offset += 1
        return self.fold.fold(Stored(self.offset, b"key", orjson.dumps({"ticks": list(ticks)}), headers))


def tick(price=100.0, second=0.0, symbol="BTC", **given):
    return {"symbol": symbol, "price": price, "timestamp_ns": START_NS + int(second * SECOND_NS), **given}


BAD = {
    "ticks[{}].price": tick(0.0),
    "ticks[{}].timestamp_ns": tick(second=5.1),
    "ticks[{}].symbol": tick(symbol="B T"),
    "ticks[{}].volume": tick(volume="1"),
    "ticks[{}]": 7,
}


@given(st.lists(st.sampled_from([None, *BAD]), min_size=1, max_size=12))
def test_each_bad_tick_is_a_dead_letter_of_its_own_and_each_good_one_counts(script):
    bench = Bench()
    ticks = [tick() if field is None else BAD[field] for field in script]
    letters = bench.take(*ticks, headers=[("own", b"1")])
    wanted = [(field.format(place), place) for place, field in enumerate(script) if field]
    assert [(read(each.headers).field, read(each.headers).tick) for each in letters] == wanted
    for letter in letters:
        assert (letter.topic, letter.key, orjson.loads(letter.value)) == ("prices.dlq", b"key", {"ticks": ticks})
        assert original(letter.headers) == [("own", b"1")]
    good = script.count(None)
    assert (bench.fold.symbols["BTC"][5] if good else len(bench.fold.symbols)) == good
    assert dict(bench.notes).get("refused_tick", 0) == len(wanted)


def test_a_message_that_is_no_object_is_one_dead_letter_whole():
    for value in (b"[1]", b"no json", b'{"ticks":[{"symbol":"a","symbol":"b"}]}', b'{"ticks":[]}'):
        (letter,) = Bench().fold.fold(Stored(0, None, value))
        assert (letter.value, read(letter.headers).tick) == (value, None)


def test_a_flood_of_symbols_refuses_those_beyond_the_limit_alone():
    bench = Bench()
    bench.take(*(tick(symbol=f"X{n}") for n in range(1_999)))
    letters = bench.take(tick(symbol="A"), tick(symbol="B"), tick(symbol="X7"), tick(symbol="C"), tick(symbol="A"))
    assert [read(letter.headers).field for letter in letters] == ["ticks[1].symbol", "ticks[3].symbol"]
    assert (bench.fold.symbols["A"][5], bench.fold.symbols["X7"][5], len(bench.fold.symbols)) == (2, 2, 2_000)


def test_the_letters_of_a_large_record_have_a_limit_and_the_last_one_says_what_is_left():
    bench = Bench()
    letters = bench.take(tick(), *[tick(0.0)] * 9_999)
    assert sum(len(letter.value) for letter in letters) <= LETTERS_BYTES_MAX
    assert 1 < len(letters) < 20
    left = 9_999 - len(letters)
    assert read(letters[-1].headers).message.endswith(
        f"; {left} more ticks of the record are refused, without a letter of their own"
    )
    assert dict(bench.notes)["refused_tick"] == 9_999


# -- the collar at ingest ----------------------------------------------------------------------------------------------
def test_a_tick_of_4_35_after_43_500_buys_nothing_and_is_told_of_once():
    sizes = []
    for slips in (False, True):
        driver = priced(Driver(partitions=1))
        for _ in range(3):
            if slips:
                driver.publish("prices", quote(driver, SLIP))
            driver.advance(1.0)
        driver.publish("signals", signal(driver.now_ns))
        driver.run()
        sizes.append(driver.allocations()[-1]["targets"])
    assert sizes[0] == sizes[1]
    assert bars_of(driver, "BTC-USD").last_price == 43_500.0
    (told,) = alerts(driver, "suspect_price")
    assert (told["subject"], told["value"], told["journal"]) == ("BTC-USD", SLIP, None)
    assert told["threshold"] == pytest.approx(43_500.0 * 0.904837418)


def test_a_step_that_is_suspect_moves_nothing_of_its_symbol_and_is_told_of_by_the_first_partition_alone():
    """A step from a market without a collar, as one of another version writes it."""
    driver = priced(Driver(partitions=2))
    states = [driver.processors["journal", partition][0].state for partition in (0, 1)]
    before = [state.markets.get(("BTC-USD",)) for state in states]
    end = driver.now_ns // SECOND_NS + 5
    body = {"source_partition": before[0].source_partition, "step": end, "step_s": 1}
    body["symbols"] = {"BTC-USD": [SLIP, SLIP, SLIP, SLIP, 9.0, 1]}
    value = orjson.dumps(body).decode()
    for partition in (0, 1):
        entry = {"event_time_ns": driver.now_ns, "headers": [], "journaled_at_ns": driver.now_ns, "key": None}
        driver.cluster.log("journal", partition).append(
            None, orjson.dumps({**entry, "kind": "step", "source": None, "value": value})
        )
    driver.run()
    for state, was in zip(states, before, strict=True):
        after = state.markets.get(("BTC-USD",))
        assert after._replace(suspect=None) == was
        assert after.suspect == (SLIP, (end + 1) * SECOND_NS)
    (told,) = alerts(driver, "suspect_price")
    assert told["journal"]["partition"] == 0
    driver.checkpoint()
    driver.crash()
    restored = driver.processors["journal", 0][0].state.markets.get(("BTC-USD",))
    assert restored.suspect.price == SLIP
    assert restored.bars == before[0].bars


def test_an_alert_that_comes_out_again_after_a_crash_has_the_same_id():
    driver = priced(Driver(partitions=1))
    driver.checkpoint()
    driver.publish("prices", {"ticks": [quote(driver, SLIP), quote(driver, SLIP, "ETH-USD")]})
    driver.run()
    first = alerts(driver, "suspect_price")
    driver.crash()
    driver.run()
    again = alerts(driver, "suspect_price")[len(first) :]
    assert first == again
    assert len({each["alert_id"] for each in first}) == 2


def test_a_symbols_first_price_counts_at_once():
    driver = Driver(partitions=1)
    driver.publish("prices", quote(driver, SLIP))
    driver.advance(2.0)
    assert bars_of(driver, "BTC-USD").last_price == SLIP


@pytest.mark.parametrize(("fall", "within_s"), [(0.75, 3), (0.6, 3), (0.4, 125)])
def test_a_crash_within_a_second_gets_through_both_collars(fall, within_s):
    driver = priced(Driver(partitions=1))
    waited = 0
    while bars_of(driver, "BTC-USD").last_price > 43_500.0 * fall * 1.01:
        for part_s in (0.0, 0.4):
            driver.publish("prices", quote(driver, 43_500.0 * fall, ahead_s=part_s))
        driver.advance(1.0)
        waited += 1
        assert waited < 200
    assert waited <= within_s


def test_an_hour_of_minus_25_percent_is_acted_on_at_once():
    driver = Driver(partitions=1)
    for number in range(40):
        price = 43_500.0 * (1.0 + 0.004 * (-1) ** number)
        driver.publish("prices", quote(driver, price) | {"volume": 10.0})
        driver.advance(3_600.0)
    assert alerts(driver, "cascade", "suspect_price") == []
    driver.publish("prices", quote(driver, 43_500.0 * 0.75) | {"volume": 10.0})
    driver.advance(2.0)
    (told,) = alerts(driver, "cascade", "suspect_price")
    assert (told["subject"], told["result"]) == ("BTC-USD:long", "REDUCE_75%")


@given(st.floats(1e-6, 1e6).filter(lambda ratio: not 0.89 < ratio < 1.12), st.integers(0, 3))
def test_one_slip_among_ticks_changes_no_step(ratio, place):
    found = []
    for slips in (False, True):
        bench = Bench()
        sends = []
        for number in range(5):
            sends += bench.take(tick(100.0 + number, number + 0.2))
            if slips and number == place:
                bench.take(tick(100.0 * ratio, number + 0.5))
        sends += bench.fold.flush()
        found.append([orjson.loads(send.value)["value"] for send in sends])
    assert found[0] == found[1]


def test_prices_suspects_and_windows_come_back_with_the_checkpoint():
    script = [tick(100.0, 0.1), tick(75.0, 0.2), tick(2.0, 0.3, "ETH"), tick(74.0, 1.3), tick(2.0, 0.2, "ETH")]
    script += [tick(74.0, n / 4) for n in range(6, 400)]
    outcomes = []
    for restarts in (False, True):
        bench, sends = Bench(), []
        for each in script:
            bench.fold.clock = lambda each=each: each["timestamp_ns"]
            sends += bench.take(each)
            if restarts:
                keys = [OPEN, LATENESS, *((TABLE, QUOTE + symbol.encode()) for symbol in bench.fold.quotes)]
                assert set(bench.fold.touched) <= set(keys)
                bench.fold.restore({}, {key: bench.fold.encode(key) for key in keys})
        outcomes.append([send for send in sends if send.topic == "alerts"])
        assert bench.fold.quotes["BTC"].suspect is None
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) == 1


# -- real hours --------------------------------------------------------------------------------------------------------
REAL = sorted(DATA.glob("*USDT_1h_*.csv.gz"))
real = pytest.mark.skipif(not REAL, reason=f"no real candles in {DATA}")
HOUR_NS = 3_600 * SECOND_NS


def ingested(path):
    """Feed a file's candles as ticks at their ends; return the notes of the market, and its steps."""
    notes, steps, now = Counter(), [], [0]
    fold = MarketFold(0, 1, lambda: PARAMS, lambda: now[0], lambda name, count: notes.update({name: count}))
    for offset, row in enumerate(candles.read(path).rows):
        now[0] = row.open_ns + HOUR_NS
        fields = {"low": row.low, "high": row.high, "volume": row.volume_coins, "timestamp_ns": now[0]}
        steps += fold.fold(Stored(offset, None, orjson.dumps({"symbol": "X", "price": row.close, **fields})))
    return notes, steps + fold.flush()


@real
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name[:3])
def test_no_real_hour_is_suspect_clipped_or_late_at_ingest(path):
    notes, steps = ingested(path)
    assert notes == {}
    assert len(steps) == len(candles.read(path).rows)


@real
@pytest.mark.parametrize(("squeezed_s", "off_s"), [(1, 1), (5, 5), (60, 0)])
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name[:3])
def test_the_worst_real_hours_squeezed_into_seconds_of_ticks_get_through_both_collars(path, squeezed_s, off_s):
    """Ten ticks a second from the open over the low to the close; how long sizing's price is more than 1 % off."""
    worst = min(candles.read(path).rows, key=lambda row: row.close / row.open)
    bench, known, off = Bench(), Collar(worst.open, START_NS), 0
    bench.fold.clock = lambda: 2 * START_NS
    bench.take(tick(worst.open))
    price = worst.open
    for second in range(squeezed_s + 10):
        for tenth in range(1, 11):
            price = along(worst, (second + tenth / 10) / squeezed_s)
            bench.take(tick(price, second + tenth / 10))
        for send in bench.fold.elapse(START_NS + (second + 2) * SECOND_NS):
            if send.topic == "journal":
                body = orjson.loads(orjson.loads(send.value)["value"])
                candle = Ohlc(*body["symbols"]["BTC"][:4])
                known, _ = collar.step(known, candle, (body["step"] + 1) * SECOND_NS, 0.0, PARAMS.market)
        off += abs(known.price / price - 1.0) > 0.01
    assert off <= off_s


def along(row, done):
    """Return the price at a share of an hour: open, low at two thirds, close."""
    if done >= 1.0:
        return row.close
    if done < 2 / 3:
        return row.open + (row.low - row.open) * done * 1.5
    return row.low + (row.close - row.low) * (done - 2 / 3) * 3.0


# -- lateness ----------------------------------------------------------------------------------------------------------
WINDOW_START_NS = START_NS - START_NS % WINDOW_NS


def windows(lateness, count, late, behind_s, first=0):
    """Play windows in which BTC ticks each second and ETH is late or behind; return what was found."""
    found = []
    for number in range(first * 30, (first + count) * 30):
        at_ns = WINDOW_START_NS + number * SECOND_NS
        found += lateness.counted("BTC", at_ns)
        for each in range(20):
            if each < late:
                lateness.late("ETH")
            else:
                found += lateness.counted("ETH", at_ns - int(behind_s * SECOND_NS))
    return found


def test_lasting_lateness_is_told_once_with_symbol_and_share():
    lateness = Lateness()
    assert windows(lateness, 2, late=1, behind_s=0.0) == []
    (told,) = windows(lateness, 200, late=1, behind_s=0.0, first=2)
    assert (told.kind, told.symbols, told.value, told.threshold) == ("late_prices", ("ETH",), 0.05, 0.05)


def test_what_does_not_last_is_not_told():
    lateness = Lateness()
    for number in range(20):
        assert windows(lateness, 1, late=number % 2 * 10, behind_s=2.0 * (number % 2), first=number) == []


def test_it_is_told_again_only_after_it_was_over_and_after_an_hour():
    lateness = Lateness()
    assert len(windows(lateness, 4, 0, 2.0)) == 1
    windows(lateness, 2, 0, 0.8, first=4)
    assert windows(lateness, 4, 0, 2.0, first=6) == [], "above half of the threshold: not over"
    windows(lateness, 2, 0, 0.1, first=10)
    assert windows(lateness, 4, 0, 2.0, first=12) == [], "over, but within the hour"
    hour = QUIET_NS // WINDOW_NS
    assert len(windows(lateness, 4, 0, 2.0, first=hour + 16)) == 1


def test_windows_come_back_as_they_were():
    lateness = Lateness()
    windows(lateness, 3, 1, 2.0)
    again = Lateness.of(orjson.loads(orjson.dumps(lateness.plain())))
    assert vars(again) == vars(lateness)
    assert again.watches["clock_skew"].alerted_ns > NEVER_NS
