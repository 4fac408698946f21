"""Files that people have, one of each kind: their first candles, worked out by hand from the text of the file."""

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest

from schemas.errors import ConfigurationException, InvalidPriceException
from streams.history import candles
from streams.history.candles import Candle, CandleFile
from streams.history.file_names import is_coin_of, symbol_of

NEW_YEAR_2024, NEW_YEAR_2025 = 1_704_067_200, 1_735_689_600
HOUR, DAY = 3_600, 86_400
CASES = next(
    (found for up in Path(__file__).parents if (found := up.parent / "shared/cases").is_dir()), Path("nowhere")
)
cases = pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")

BINANCE = """\
1735689600000000,43000.00000000,43459.25887943,42994.29512043,43333.63937283,68.23095589,1735693199999999,2956695.63,1234,34.1,1478347.8,0
1735693200000000,43333.63937283,43336.35505014,42962.59641502,43050.60072596,48.75245053,1735696799999999,2098822.28,1234,24.3,1049411.1,0
"""
KRAKEN = """\
1735689600,43000.0,43459.3,42994.3,43333.6,68.23095589,100
1735693200,43333.6,43336.4,42962.6,43050.6,48.75245053,101
"""
OKX = """\
ts,open,high,low,close,vol,volCcy,volCcyQuote,confirm
1736766000000,44347.6,44581.4,43983.2,44169.9,115.5767,115.5767,5105014.91,0
1736762400000,44168.7,44460.0,44088.3,44347.6,103.6656,103.6656,4597321.19,1
1736758800000,44258.2,44261.7,44082.2,44168.7,39.3473,39.3473,1737920.02,1
"""
YAHOO = """\
Date,Open,High,Low,Close,Adj Close,Volume
2024-01-01,43000.000000,43219.915550,42574.700231,42671.178128,42671.178128,25627427649
2024-01-02,null,null,null,null,null,null
2024-01-03,42671.178128,42762.196582,41035.670777,41497.084067,41497.084067,37087156501
2024-01-04,41497.084067,42914.744798,41333.266180,42808.194036,42808.194036,32912769457
"""
GERMAN = """\
timestamp;open;high;low;close;volume\r
1735689600;43000,00;43459,26;42994,30;43333,64;68,23096\r
1735693200;43.333,64;43336,36;42962,60;43050,60;48,75245\r
"""
TRADINGVIEW = """\
time,open,high,low,close,Volume
2025-01-01T00:00:00Z,43000.00,43459.26,42994.30,43333.64,68.23096
2025-01-01T02:00:00+01:00,43333.64,43336.36,42962.60,43050.60,48.75245
"""
FREQTRADE = json.dumps(
    [
        [1735689600000, 43000.0, 43459.25887942752, 42994.29512043131, 43333.63937283166, 68.23095588681718],
        [1735693200000, 43333.63937283166, 43336.35505014128, 42962.59641501753, 43050.60072596329, 48.75245052874592],
    ]
)
OBJECTS = json.dumps(
    [
        {"timestamp": 1735689600000 + 3_600_000 * n, "open": 1.5, "high": 2, "low": 1, "close": 1.75, "volume": n}
        for n in range(2)
    ]
)

FORMATS = {
    "Binance Vision, no header, µs": (
        "BTCUSDT-1h-2025-01.csv",
        BINANCE,
        ("BTCUSDT", HOUR, (NEW_YEAR_2025, 43000.0, 43459.25887943, 42994.29512043, 43333.63937283, 68.23095589)),
    ),
    "Kraken, no header": (
        "XBTUSD_60.csv",
        KRAKEN,
        ("XBTUSD", HOUR, (NEW_YEAR_2025, 43000.0, 43459.3, 42994.3, 43333.6, 68.23095589)),
    ),
    "OKX, newest first, the newest not over": (
        "BTC-USDT_okx_1H.csv",
        OKX,
        ("BTC-USDT", HOUR, (1_736_758_800, 44258.2, 44261.7, 44082.2, 44168.7, 39.3473)),
    ),
    "Yahoo, days by date, volume in USD": (
        "BTC-USD_yahoo.csv",
        YAHOO,
        # 25,627,427,649 USD at 42,671.178128 USD a coin
        ("BTC-USD", DAY, (NEW_YEAR_2024, 43000.0, 43219.91555, 42574.700231, 42671.178128, 600579.3318414093)),
    ),
    "semicolons, decimal commas, a byte order mark": (
        "BTCEUR_de.csv",
        "\ufeff" + GERMAN,
        ("BTCEUR", HOUR, (NEW_YEAR_2025, 43000.0, 43459.26, 42994.3, 43333.64, 68.23096)),
    ),
    "TradingView, ISO 8601": (
        "BINANCE_BTCUSDT, 60 iso.csv",
        TRADINGVIEW,
        ("BTCUSDT", HOUR, (NEW_YEAR_2025, 43000.0, 43459.26, 42994.3, 43333.64, 68.23096)),
    ),
    "freqtrade and ccxt, JSON": (
        "BTC_USDT-1h.json",
        FREQTRADE,
        (
            "BTC_USDT",
            HOUR,
            (
                NEW_YEAR_2025,
                43000.0,
                43459.25887942752,
                42994.29512043131,
                43333.63937283166,
                68.23095588681718,
            ),
        ),
    ),
    "JSON objects": ("BTC-USD.json", OBJECTS, ("BTC-USD", HOUR, (NEW_YEAR_2025, 1.5, 2.0, 1.0, 1.75, 0.0))),
}


def read(folder, text, name="BTC-USD.csv", **given):
    path = folder / name
    path.write_bytes(text.encode())
    return candles.read(path, **given)


def hourly(*rows, header="timestamp,open,high,low,close,volume"):
    return "\n".join((header, *rows)) + "\n"


def at(n, prices="100,102,98,101,10", width_s=HOUR):
    return f"{NEW_YEAR_2025 + n * width_s},{prices}"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_that_people_have_is_read(tmp_path, kind):
    name, text, (symbol, width_s, (open_s, *values)) = FORMATS[kind]
    found = read(tmp_path, text, name)
    assert (found.symbol, found.width_s) == (symbol, width_s)
    assert found.rows[0] == Candle(open_s * 10**9, *values)


def test_what_is_no_candle_is_counted_and_leaves_a_gap(tmp_path):
    yahoo, okx = read(tmp_path, YAHOO), read(tmp_path, OKX)
    assert yahoo.found == CandleFile(3, 1, 0, 0, 1)
    assert okx.found == CandleFile(2, 0, 0, 0, 1)
    assert okx.rows[-1].close == 44347.6


def test_a_swaps_volume_is_in_coins_not_in_contracts(tmp_path):
    text = OKX.replace("39.3473,39.3473", "3934.73,39.3473")
    assert read(tmp_path, text, "BTC-USDT-SWAP_okx_1H.csv").rows[0].volume_coins == 39.3473
    assert read(tmp_path, text, "BTC-USDT_okx_1H.csv").rows[0].volume_coins == 3934.73


def test_a_dot_among_decimal_commas_separates_thousands_or_is_refused(tmp_path):
    assert read(tmp_path, GERMAN).rows[1].open == 43333.64
    with pytest.raises(InvalidPriceException, match=r":2: open: must be a number with a decimal comma.*'43000\.5'"):
        read(tmp_path, GERMAN.replace("43000,00", "43000.5"))


def test_a_date_without_an_offset_is_utc(tmp_path):
    rows = [f"2025-01-01 0{n}:00:00,100,102,98,101,10" for n in range(2)]
    assert read(tmp_path, hourly(*rows)).rows[0].open_ns == NEW_YEAR_2025 * 10**9
    with pytest.raises(InvalidPriceException, match=r":2: time: .* was '2025-13-01'"):
        read(tmp_path, hourly("2025-13-01,100,102,98,101,10"))


@pytest.mark.parametrize(("hours", "name"), [(23, "spring"), (25, "autumn")])
def test_a_day_of_23_or_25_hours_is_no_gap_and_ends_where_the_next_one_opens(tmp_path, hours, name):
    opens = [0, 24, 48, 48 + hours, 72 + hours]
    found = read(
        tmp_path, hourly(*(f"{NEW_YEAR_2025 + hour * HOUR},100,102,98,101,10" for hour in opens)), f"{name}.csv"
    )
    assert (found.width_s, found.found) == (DAY, CandleFile(5, 0, 0))
    ends = [(found.end_ns(each) // 10**9 - NEW_YEAR_2025) // HOUR for each in found.rows]
    assert ends == [24, 48, 48 + hours, 72 + hours, 96 + hours]


def test_candles_that_open_seconds_late_after_an_outage_are_read(tmp_path):
    late = [f"{NEW_YEAR_2025 + n * HOUR + (14 if 3 <= n < 6 else 0)},100,102,98,101,10" for n in (0, 1, 3, 4, 5, 6, 7)]
    found = read(tmp_path, hourly(*late))
    assert (found.width_s, found.found) == (HOUR, CandleFile(7, 1, 0))
    assert found.end_ns(found.rows[4]) == found.rows[5].open_ns
    with pytest.raises(InvalidPriceException, match=r":4: time: must be 3600 s or more after .*, was '3563 s'"):
        read(tmp_path, hourly(at(0), at(1), f"{NEW_YEAR_2025 + 2 * HOUR - 37},100,102,98,101,10", at(3), at(4)))


def test_an_open_that_is_the_close_before_is_moved_to_the_nearest_price_traded(tmp_path):
    """BitMEX gives the last close as the open of the next candle."""
    found = read(tmp_path, hourly(at(0, "100,102,98,101,1"), at(1, "101,104,102,103,1"), at(2, "103,104,102,103,1")))
    assert found.rows[1] == Candle((NEW_YEAR_2025 + HOUR) * 10**9, 102.0, 104.0, 102.0, 103.0, 1.0)
    for bad in (at(1, "100.9,104,102,103,1"), at(1, "101,104,102,105,1")):
        with pytest.raises(InvalidPriceException, match=r":3: low: open and close must lie between low and high"):
            read(tmp_path, hourly(at(0, "100,102,98,101,1"), bad, at(2)))
    with pytest.raises(InvalidPriceException, match=r":2: low: open and close must lie between"):
        read(tmp_path, hourly(at(0, "97,102,98,101,1"), at(1), at(2)))


def test_a_zip_archive_is_named_as_such(tmp_path):
    path = tmp_path / "BTCUSDT-1h-2025-01.zip"
    path.write_bytes(b"PK\x03\x04rest")
    with pytest.raises(ConfigurationException, match="it is a zip archive; unpack it first"):
        candles.read(path)


@pytest.mark.parametrize(
    ("text", "rule"),
    [("[1, 2]", "an array of candles"), ('{"a": 1}', "an array of candles"), ("[[1,", "JSON: "), ("[]", "a header")],
)
def test_json_that_holds_no_candles_is_refused(tmp_path, text, rule):
    with pytest.raises(ConfigurationException, match=rule):
        read(tmp_path, text, "BTC-USD.json")


# -- bad rows ------------------------------------------------------------------------------------------------------
BAD = (
    at(0),
    at(1, "x,2,1,1,1"),
    at(2),
    at(2, "1,2,1,1,1"),
    "oops",
    at(3),
    at(4),
    f"{NEW_YEAR_2025 + 99},1,1,1,1,1",
    at(5),
)


def test_bad_rows_are_skipped_counted_and_named_where_that_is_asked_for(tmp_path):
    found = read(tmp_path, hourly(*BAD), tolerant=True)
    assert [each.open_ns // 10**9 for each in found.rows] == [NEW_YEAR_2025 + n * HOUR for n in (0, 2, 3, 4, 5)]
    assert found.found == CandleFile(5, 1, 0, 4)
    assert [text.split("BTC-USD.csv:")[1].split(",")[0] for text in found.skipped] == [
        "3: open: must be a number",
        "6: time: must be a whole number of s",
        "5: time: must be the candle of line 4 at the same time",
        "9: time: must be 3600 s or more after the previous candle",
    ]


def test_one_bad_row_refuses_the_file_where_nothing_is_asked_for(tmp_path):
    with pytest.raises(InvalidPriceException, match=r"BTC-USD\.csv:3: open: must be a number, was 'x'"):
        read(tmp_path, hourly(*BAD))


# -- several files of one symbol -----------------------------------------------------------------------------------
def test_files_that_overlap_are_joined_and_equal_rows_counted(tmp_path):
    early = read(tmp_path, hourly(*map(at, range(6))), "BTCUSDT_1h_a.csv")
    late = read(tmp_path, hourly(*map(at, (4, 5, 6, 7, 9))), "BTCUSDT_1h_b.csv")
    other = read(tmp_path, hourly(*map(at, range(3))), "ETHUSDT_1h.csv")
    whole, alone = candles.joined([("a", early), ("c", other), ("b", late)])
    assert alone is other
    assert (whole.symbol, whole.width_s, whole.found) == ("BTCUSDT", HOUR, CandleFile(9, 1, 2))
    assert [each.open_ns // 10**9 for each in whole.rows] == [NEW_YEAR_2025 + n * HOUR for n in (*range(8), 9)]
    assert candles.joined([("b", late), ("a", early)])[0] == whole


def test_files_that_contradict_each_other_are_refused_by_file_and_time(tmp_path):
    one = read(tmp_path, hourly(*map(at, range(3))))
    other = read(tmp_path, hourly(at(2), at(1, "50,51,49,50,1")))
    rule = r"b\.csv: time: must be the candle of a\.csv at the same time, 2025-01-01 01:00:00 UTC, .*100\.0"
    with pytest.raises(InvalidPriceException, match=rule):
        candles.joined([("a.csv", one), ("b.csv", other)])


def test_files_of_different_widths_are_refused(tmp_path):
    one = read(tmp_path, hourly(*map(at, range(3))))
    other = read(tmp_path, hourly(*(at(n, width_s=DAY) for n in range(3))))
    with pytest.raises(
        ConfigurationException, match=r"b: candles of BTC-USD must be 3600 s wide as in a, were 86400 s"
    ):
        candles.joined([("a", one), ("b", other)])


def test_candles_between_those_of_another_file_are_refused(tmp_path):
    one = read(tmp_path, hourly(*map(at, range(3))))
    half = read(tmp_path, hourly(*(f"{NEW_YEAR_2025 + n * HOUR + 1800},100,102,98,101,10" for n in range(2))))
    with pytest.raises(InvalidPriceException, match=r"or more after the previous candle"):
        candles.joined([("a", one), ("b", half)])


# -- symbols -------------------------------------------------------------------------------------------------------
NAMES = {
    # Binance Vision
    "BTCUSDT-1h-2025-01.csv": "BTCUSDT",
    "BTCUSDT-1m-2025-01-31.csv": "BTCUSDT",
    "1000PEPEUSDT-4h-2024-12.csv.gz": "1000PEPEUSDT",
    "BTCUSD_PERP-1h-2025-01.csv": "BTCUSD_PERP",
    "BTCUSDT_250328-1h-2025-01.csv": "BTCUSDT_250328",
    # TradingView
    "BINANCE_BTCUSDT, 60.csv": "BTCUSDT",
    "BINANCE_BTCUSDT, 60 iso.csv": "BTCUSDT",
    "BINANCE_ETHUSDT.P, 240_4f3a2.csv": "ETHUSDT.P",
    "COINBASE_SOLUSD, 1D (1).csv": "SOLUSD",
    "CRYPTOCAP_TOTAL, 1D.csv": "TOTAL",
    # Kaiko
    "cbse_btcusd_ohlcv_1h_2024.csv.gz": "BTCUSD",
    "kaiko-cbse_eth-usd_ohlcv_1d.csv": "ETH-USD",
    "Kraken_BTCEUR_ohlcv_2020_01_01.csv.gz": "BTCEUR",
    # CryptoDataDownload
    "Binance_BTCUSDT_1h.csv": "BTCUSDT",
    "Binance_SOLUSDT_2023_minute.csv": "SOLUSDT",
    "Bitstamp_BTCUSD_d.csv": "BTCUSD",
    "gemini_ETHUSD_2020_1min.csv": "ETHUSD",
    "HitBTC_LTCBTC_1h.csv": "LTCBTC",
    # and others
    "BTC-USD_yahoo.csv": "BTC-USD",
    "BTC-USDT_okx_1H.csv": "BTC-USDT",
    "BTC-USDT-SWAP_okx_1H.csv": "BTC-USDT-SWAP",
    "BTC_USDT-1h.json": "BTC_USDT",
    "BTCEUR_de.csv": "BTCEUR",
    "XBTUSD_60.csv": "XBTUSD",
    "BTCUSDT_1h_2020-08_2022-06.csv.gz": "BTCUSDT",
    "BTCUSDT_1h_a.csv": "BTCUSDT",
    "MATICUSDT.csv": "MATICUSDT",
    "bitcoin.csv": "bitcoin",
    "äöü.csv": "",
}


@pytest.mark.parametrize("name", NAMES)
def test_the_symbol_is_found_in_the_names_that_files_have(name):
    assert symbol_of(Path(name)) == NAMES[name]


def test_a_symbol_that_is_given_wins_over_column_and_name(tmp_path):
    text = hourly(f"{at(0)},ETH/USDT", f"{at(1)},ETH/USDT", header="timestamp,open,high,low,close,volume,symbol")
    assert read(tmp_path, text).symbol == "ETH/USDT"
    assert read(tmp_path, text, symbol="ETH-USD").symbol == "ETH-USD"


def test_a_file_without_any_name_asks_for_one(tmp_path):
    with pytest.raises(ConfigurationException, match=r"or --symbol"):
        read(tmp_path, hourly(at(0), at(1)), "äöü.csv")


@pytest.mark.parametrize(
    ("coin", "symbol", "so"),
    [("ma", "MATICUSDT", False), ("matic", "MATICUSDT", True), ("eth", "ETH/USDT", True), ("usdt", "ADAUSDT", False)],
)
def test_a_volumes_coin_is_the_whole_coin(coin, symbol, so):
    assert is_coin_of(coin, symbol) is so


# -- the files of the issue ----------------------------------------------------------------------------------------
FIRST = {
    "BINANCE_BTCUSDT, 60 iso.csv": FORMATS["TradingView, ISO 8601"][2],
    "BTC-USDT_okx_1H.csv": ("BTC-USDT", HOUR, (1_736_557_200, 46646.7, 46735.3, 46297.4, 46327.7, 177.2692)),
    "BTC-USD_yahoo.csv": FORMATS["Yahoo, days by date, volume in USD"][2],
    "BTCEUR_de.csv": FORMATS["semicolons, decimal commas, a byte order mark"][2],
    "BTCUSDT-1h-2025-01.csv": FORMATS["Binance Vision, no header, µs"][2],
    "BTCUSD_daily_ny.csv": ("BTCUSD", DAY, (1_735_707_600, 43000.0, 43219.92, 42574.7, 42671.18, 85.42476)),
    "BTCUSD_off14.csv": ("BTCUSD", HOUR, (NEW_YEAR_2025, 43000.0, 43459.26, 42994.3, 43333.64, 68.23096)),
    "BTC_USDT-1h.json": FORMATS["freqtrade and ccxt, JSON"][2],
    "XBTUSD_60.csv": FORMATS["Kraken, no header"][2],
    "XBTUSD_bitmex.csv": ("XBTUSD", HOUR, (NEW_YEAR_2025, 43000.0, 43459.26, 42994.3, 43333.64, 68.23096)),
}


@cases
@pytest.mark.parametrize("name", FIRST)
def test_a_file_that_was_refused_is_read(name):
    symbol, width_s, (open_s, *values) = FIRST[name]
    found = candles.read(CASES / "unsupported" / name)
    assert (found.symbol, found.width_s, found.rows[0]) == (symbol, width_s, Candle(open_s * 10**9, *values))


@cases
def test_no_file_that_was_refused_is_left_out():
    assert sorted(FIRST) == sorted(path.name for path in (CASES / "unsupported").iterdir())


@cases
def test_the_overlapping_files_share_fifty_rows():
    paths = sorted((CASES / "candles/overlap").glob("*.csv"))
    (whole,) = candles.joined([(path, candles.read(path)) for path in paths])
    assert whole.found == CandleFile(600, 0, 50)


@cases
def test_a_moving_average_of_the_volume_is_not_the_volume():
    assert [each.volume_coins for each in islice(candles.read(CASES / "candles/MATICUSDT.csv").rows, 2)] == [
        260.28423,
        85.13407,
    ]


def test_a_zipped_json_file_is_read(tmp_path):
    path = tmp_path / "BTC_USDT-1h.json.gz"
    path.write_bytes(gzip.compress(FREQTRADE.encode()))
    assert candles.read(path).rows[0].open == 43000.0
