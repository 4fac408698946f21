import csv
import gzip
import math
from itertools import pairwise
from pathlib import Path
from random import Random

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import wire
from schemas.errors import ConfigurationException, InvalidPriceException
from schemas.price import PriceTick
from streams.history import candles
from streams.history.candles import Candle, CandleFile, Candles

DATA = Path(__file__).parents[4] / "shared" / "data"
HOUR = 3_600
START_S = 1_600_000_000 - 1_600_000_000 % HOUR
REAL = sorted(DATA.glob("*USDT_1h_*.csv.gz"))
real = pytest.mark.skipif(not REAL, reason=f"no real candles in {DATA}")


def row(n, price=100.0, time=None):
    return (
        f"{(START_S + n * HOUR) * 1000 if time is None else time},{price},{price + 2},{price - 2},{price + 1},{10 + n}"
    )


def written(folder, *lines, name="BTC-USD.csv", header="timestamp,open,high,low,close,volume"):
    path = folder / name
    text = "\n".join((header, *lines)) + "\n"
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def test_a_plain_file_in_ms_is_read(tmp_path):
    found = candles.read(written(tmp_path, row(0), row(1)))
    assert found == Candles(
        "BTC-USD",
        HOUR,
        [
            Candle(START_S * 10**9, 100.0, 102.0, 98.0, 101.0, 10.0),
            Candle((START_S + HOUR) * 10**9, 100.0, 102.0, 98.0, 101.0, 11.0),
        ],
        CandleFile(2, 0, 0),
    )


def test_newest_first_and_oldest_first_give_the_same_candles(tmp_path):
    rows = [row(n, 100.0 + n) for n in range(5)]
    oldest_first = candles.read(written(tmp_path, *rows))
    assert candles.read(written(tmp_path, *reversed(rows))) == oldest_first
    assert [each.open for each in oldest_first.rows] == [100.0, 101.0, 102.0, 103.0, 104.0]


def test_a_zipped_file_is_read_by_what_it_is_not_by_its_name(tmp_path):
    plain = candles.read(written(tmp_path, row(0), row(1)))
    zipped = written(tmp_path, row(0), row(1), name="BTC-USD.csv.gz")
    assert candles.read(zipped) == plain
    assert candles.read(zipped.rename(tmp_path / "BTC-USD.csv")) == plain


@pytest.mark.parametrize("factor", [1, 1_000, 1_000_000, 1_000_000_000])
def test_time_is_taken_in_seconds_milliseconds_and_microseconds(tmp_path, factor):
    rows = [row(n, time=(START_S + n * HOUR) * factor) for n in range(3)]
    assert candles.read(written(tmp_path, *rows)).rows[0].open_ns == START_S * 10**9


def test_a_file_may_change_its_unit_half_way(tmp_path):
    found = candles.read(written(tmp_path, row(0, time=START_S), row(1), row(2, time=f"{START_S + 2 * HOUR}.0")))
    assert (found.width_s, found.found) == (HOUR, CandleFile(3, 0, 0))


def test_a_line_above_the_header_and_the_coin_in_a_header_are_passed_over(tmp_path):
    path = tmp_path / "Binance_ETHUSDT_1h.csv"
    path.write_text(
        "https://www.CryptoDataDownload.com\n"
        "\n"
        "unix,date,symbol,open,high,low,close,Volume ETH,Volume USDT,tradecount\n"
        f"{START_S + HOUR},x,ETH/USDT,3,4,2,3.5,7,24.5,9\n"
        f"{START_S},x,ETH/USDT,3,4,2,3,5,15,9\n"
    )
    found = candles.read(path)
    assert found.symbol == "ETH/USDT"
    assert [each.volume_coins for each in found.rows] == [5.0, 7.0]


def test_the_volume_in_coins_is_found_wherever_it_stands(tmp_path):
    header = "timestamp,open,high,low,close,Volume USDT,Volume ADA"
    rows = [f"{row(n)},{n}.5" for n in range(2)]
    path = written(tmp_path, *rows, name="ADAUSDT_1h.csv", header=header)
    assert [each.volume_coins for each in candles.read(path).rows] == [0.5, 1.5]


@pytest.mark.parametrize(
    "header", ["Volume,Volume MA", "Volume,Volume ADA", "volume,quote_volume", "VOLUME,Volume (ADA)"]
)
def test_the_plain_volume_comes_before_any_other(tmp_path, header):
    rows = [f"{row(n)},12345" for n in range(2)]
    header = f"timestamp,open,high,low,close,{header}"
    path = written(tmp_path, *rows, name="ADAUSDT_1h.csv", header=header)
    assert [each.volume_coins for each in candles.read(path).rows] == [10.0, 11.0]


def test_an_average_of_the_volume_is_no_volume(tmp_path):
    header = "timestamp,open,high,low,close,Volume MA"
    with pytest.raises(ConfigurationException, match="must have a volume in coins of MATICUSDT, has 'ma'"):
        candles.read(written(tmp_path, row(0), row(1), name="MATICUSDT.csv", header=header))


def test_a_volume_in_dollars_alone_is_refused(tmp_path):
    header = "timestamp,open,high,low,close,Volume USDT"
    with pytest.raises(ConfigurationException, match="must have a volume in coins of ADAUSDT, has 'usdt'"):
        candles.read(written(tmp_path, row(0), row(1), name="ADAUSDT_1h.csv", header=header))


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTCUSDT_1h_2020-08_2022-06.csv.gz", "BTCUSDT"),
        ("Binance_SOLUSDT_1h.csv", "SOLUSDT"),
        ("BTC-USD.csv", "BTC-USD"),
        ("bitcoin.csv", "bitcoin"),
    ],
)
def test_without_a_column_the_symbol_is_the_files(tmp_path, name, symbol):
    assert candles.read(written(tmp_path, row(0), row(1), name=name)).symbol == symbol


def test_gaps_are_holes_not_missing_candles(tmp_path):
    found = candles.read(written(tmp_path, *(row(n) for n in (0, 1, 2, 7, 8, 10, 11))))
    assert (found.width_s, found.found) == (HOUR, CandleFile(7, 2, 0))


def test_a_row_given_twice_counts_once(tmp_path):
    found = candles.read(written(tmp_path, row(0), row(1), row(1), row(2), row(1)))
    assert found.found == CandleFile(3, 0, 2)


def test_a_row_given_twice_with_other_numbers_is_refused(tmp_path):
    path = written(tmp_path, row(0), row(1), row(2), row(1, 50.0))
    with pytest.raises(InvalidPriceException, match=r"BTC-USD\.csv:5: time: must be the candle of line 3") as caught:
        candles.read(path)
    assert caught.value.code == "inconsistent"


def test_candles_that_overlap_are_refused(tmp_path):
    path = written(tmp_path, row(0), row(1), row(2), row(0, time=START_S + 2 * HOUR + 60))
    with pytest.raises(InvalidPriceException, match=r":5: time: must be 3600 s or more after .*, was '60 s'"):
        candles.read(path)


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (
            "x,1,1,1,1,1",
            "wrong_type",
            "time: must be a whole number of s, ms or µs since 1970, or an ISO 8601 date, was 'x'",
        ),
        ("1.6E+12,1,1,1,1,1", "wrong_type", "time: must be a whole number"),
        (
            "12345,1,1,1,1,1",
            "timestamp_unit",
            "time: must be s, ms or µs since 1970, between 2001 and 2099, was '12345'",
        ),
        (f"{START_S},abc,1,1,1,1", "wrong_type", "open: must be a number, was 'abc'"),
        (f"{START_S},1,nan,1,1,1", "not_finite", "high: must be finite, was 'nan'"),
        (f"{START_S},1,1e999,1,1,1", "not_finite", "high: must be finite, was '1e999'"),
        (f"{START_S},1,2,0,1,1", "out_of_range", "low: must be positive, was '0'"),
        (f"{START_S},1,2,-3,1,1", "out_of_range", "low: must be positive, was '-3'"),
        (f"{START_S},1,2,1,3,1", "inconsistent", "low: open and close must lie between low and high, was '1, 2, 1, 3'"),
        (f"{START_S},1,1,1,1,-5", "out_of_range", "volume: must not be negative, was '-5'"),
        (f"{START_S},1,1,1,1", "missing", "volume: must be given, was ''"),
        (f"{START_S},,1,1,1,1", "missing", "open: must be given"),
    ],
)
def test_a_bad_row_is_named_by_line_rule_and_value(tmp_path, line, code, text):
    with pytest.raises(InvalidPriceException) as caught:
        candles.read(written(tmp_path, row(1), line, row(2)))
    assert caught.value.code == code
    assert f"BTC-USD.csv:3: {text}" in str(caught.value)


def test_two_symbols_in_one_file_are_refused(tmp_path):
    header = "timestamp,open,high,low,close,volume,symbol"
    with pytest.raises(InvalidPriceException, match=r":3: symbol: must be one symbol a file, A-USD, was 'B-USD'"):
        candles.read(written(tmp_path, f"{row(0)},A-USD", f"{row(1)},B-USD", header=header))


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "must have a header"),
        (b"a,b,c\n1,2,3\n", "must have a header"),
        (b"timestamp,open,high,low,close,volume\n", "must hold two candles or more, holds 0"),
        (b"\x1f\x8b\x08broken", "must be a readable CSV or JSON file"),
        (gzip.compress(b"timestamp,open\n", mtime=0)[:-6], "must be a readable CSV or JSON file"),
        (b"\xff\xfe\x00", "must be a readable CSV or JSON file"),
    ],
)
def test_a_file_that_is_none_is_refused_as_a_whole(tmp_path, content, rule):
    path = tmp_path / "BTC-USD.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigurationException, match=rule) as caught:
        candles.read(path)
    assert caught.value.file == str(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        ConfigurationException, match=r"nowhere\.csv: must be a readable CSV or JSON file: No such file"
    ):
        candles.read(tmp_path / "nowhere.csv")


def test_a_candle_is_a_tick_at_its_end(tmp_path):
    (first, _) = candles.merge([candles.read(written(tmp_path, row(0), row(1)))])
    assert (first.time_ns, first.topic, first.key) == ((START_S + HOUR) * 10**9, "prices", b"BTC-USD")
    tick = wire.decode(PriceTick, first.value, place="test")
    assert tick.timestamp_ns == first.time_ns
    assert (tick.price, tick.low, tick.high, tick.volume) == (101.0, 98.0, 102.0, 10.0)


def test_files_of_any_width_are_merged_by_the_time_at_which_their_candles_end(tmp_path):
    hourly = candles.read(written(tmp_path, row(0), row(1), name="A-USD.csv"))
    half = [row(0, time=START_S + 1_800 * n) for n in range(4)]
    halves = candles.read(written(tmp_path, *half, name="B-USD.csv"))
    merged = [((each.time_ns // 10**9 - START_S) // 1_800, each.key) for each in candles.merge([hourly, halves])]
    assert merged == [(1, b"B-USD"), (2, b"A-USD"), (2, b"B-USD"), (3, b"B-USD"), (4, b"A-USD"), (4, b"B-USD")]


@example([0, 24, 49], Random(0))
@example([0, 25, 49], Random(0))
@given(st.lists(st.integers(0, 60), min_size=2, max_size=40).filter(lambda each: len(set(each)) > 1), st.randoms())
def test_any_order_with_any_repeats_gives_each_candle_once_in_order(tmp_path_factory, numbers, random):
    places = sorted(set(numbers))
    shuffled = list(numbers)
    random.shuffle(shuffled)
    path = written(tmp_path_factory.getbasetemp(), *(row(n) for n in shuffled), name="X-USD.csv")
    distances = [after - before for before, after in pairwise(places)]
    width = max(sorted(set(distances)), key=distances.count)
    slack = 1 if width >= 24 else 0
    """A day in local time has 23, 24 or 25 hours."""
    if min(distances) < width - slack:
        with pytest.raises(InvalidPriceException, match="or more after"):
            candles.read(path)
        return
    found = candles.read(path)
    assert [each.open_ns // 10**9 for each in found.rows] == [START_S + n * HOUR for n in places]
    assert found.found == CandleFile(len(places), sum(d > width + slack for d in distances), len(numbers) - len(places))
    assert found.width_s == width * HOUR


def test_what_several_files_held_is_added_up(tmp_path):
    one = candles.read(written(tmp_path, row(0), row(1), row(1), row(2)))
    other = candles.read(written(tmp_path, row(0), row(1), row(2), row(4)))
    assert candles.found([one, other]) == CandleFile(7, 1, 1)


@real
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name[:7])
def test_the_real_files_are_read_whole_and_equal_to_a_plain_csv_reader(path):
    with gzip.open(path, "rt") as text:
        rows = sorted(csv.DictReader(text), key=lambda each: int(each["unix"]))
    found = candles.read(path)
    assert found.symbol == rows[0]["symbol"]
    assert (found.width_s, found.found) == (HOUR, CandleFile(16_319, 0, 0))
    for candle, oracle in zip(found.rows, rows, strict=True):
        coin = oracle["symbol"].split("/")[0]
        names = ("open", "high", "low", "close", f"Volume {coin}")
        assert candle == (int(oracle["unix"]) * 10**6, *(float(oracle[name]) for name in names), None)


@real
def test_the_real_files_merged_are_in_order_and_all_ticks_are_valid():
    merged = list(candles.merge([candles.read(path) for path in REAL]))
    times = [each.time_ns for each in merged]
    assert times == sorted(times)
    assert len(times) == 16_319 * len(REAL)
    for each in merged[::997]:
        assert wire.decode(PriceTick, each.value, place="test").timestamp_ns == each.time_ns
        assert math.isfinite(orjson.loads(each.value)["volume"])
