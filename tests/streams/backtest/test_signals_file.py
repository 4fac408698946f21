"""Files of signals: three formats give the same messages, and what is wrong is named with its row."""

import csv
import gzip

import orjson
import pyarrow as pa
import pytest
from markets import HOUR_NS, START_NS, said, walk
from pyarrow import parquet

from schemas.errors import ConfigurationException, InvalidSignalException
from streams.backtest import funding
from streams.backtest.funding import Funding
from streams.backtest.signals_file import FromFile, read

MARKET = [walk("BTC-USD", 50, 1), walk("ETH-USD", 50, 2)]
SIGNALS = [said(2), said(2, "ETH-USD", action="sell"), said(5, signal_id="mine-5", valid_for_s=7_200.0)]


def json_lines(path, rows):
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)) + b"\n\n")


def compressed(path, rows):
    path.write_bytes(gzip.compress(b"\n".join(map(orjson.dumps, rows))))


def csv_rows(path, rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def parquet_rows(path, rows):
    parquet.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize("write", [json_lines, compressed, csv_rows, parquet_rows])
def test_every_format_gives_the_same_signals(tmp_path, write):
    path = tmp_path / "signals"
    write(path, [{**row, "valid_for_s": row.get("valid_for_s"), "signal_id": row.get("signal_id")} for row in SIGNALS])
    found, skipped = read(path, MARKET)
    assert skipped == []
    plain = [each.message.model_dump(exclude_none=True, exclude_defaults=True) for each in found]
    expected = [{"signal_id": f"row-{number}", **row} for number, row in enumerate(SIGNALS, 1)]
    assert plain == expected
    assert [each.time_ns - each.message.timestamp_ns for each in found] == [1_000_000_000] * 3


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (
            [said(2), said(0.5)],
            r"signals.jsonl:2: timestamp_ns: must not be before the end of the first candle of BTC-USD",
        ),
        ([said(51)], r"signals.jsonl:1: timestamp_ns: must not be after the end of the last candle of BTC-USD"),
        (
            [said(2, "DOGE")],
            r"signals.jsonl:1: symbol: must have candles, which only BTC-USD, ETH-USD have, was 'DOGE'",
        ),
        ([said(5), said(4)], r"signals.jsonl:2: timestamp_ns: must not be before that of .*signals.jsonl:1"),
        ([said(5), said(5)], r"signals.jsonl:2: timestamp_ns: must be once .*, was in .*signals.jsonl:1 too"),
        ([said(5, signal_id="a"), said(6, signal_id="a")], r"signals.jsonl:2: signal_id: must be once .*: a"),
        ([said(5, confidence=2.0)], r"signals.jsonl:1: confidence must be at most 1, was 2.0"),
    ],
    ids=["before", "after", "no candles", "unsorted", "doubled", "doubled id", "invalid"],
)
def test_what_is_wrong_is_named_and_tolerance_skips_it(tmp_path, rows, text):
    rows = [row | {"timestamp_ns": int(row["timestamp_ns"])} for row in rows]
    json_lines(path := tmp_path / "signals.jsonl", rows)
    with pytest.raises(InvalidSignalException, match=text) as refused:
        read(path, MARKET)
    assert refused.value.exit_code == 5
    json_lines(path, [*rows, said(9)])
    found, skipped = read(path, MARKET, tolerant=True)
    unsorted = "before that" in text
    assert len(found) == len(rows) + (1 if unsorted else 0)
    assert [each.time_ns for each in found] == sorted(each.time_ns for each in found)
    assert len(skipped) == (0 if unsorted else 1)


def test_files_that_hold_no_signals_are_refused(tmp_path):
    path = tmp_path / "signals"
    for content, text in (
        (b"", "the columns timestamp_ns, strategy_id, symbol, action are missing"),
        (b"time,side\n1,buy\n", "the columns timestamp_ns, strategy_id, symbol, action are missing"),
        (b"timestamp_ns,strategy_id,symbol,action\n", "must hold a signal, holds none"),
        (b"PAR1 nothing", "must be readable Parquet"),
        (b"\xff\xfe", "must be UTF-8 text"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigurationException, match=text):
            read(path, MARKET)
    path.write_bytes(b'{"a": 1}\n{oops\n')
    with pytest.raises(InvalidSignalException, match="signals:"):
        read(path, MARKET)
    with pytest.raises(ConfigurationException, match="must be a readable file: No such file"):
        read(tmp_path / "absent", MARKET)


def test_signals_are_sent_once_and_in_time(tmp_path):
    json_lines(path := tmp_path / "signals", SIGNALS)
    source = FromFile(read(path, MARKET)[0])
    assert source.names() == ("mine",)
    at_ns = START_NS + 2 * HOUR_NS
    assert list(source.between(0, at_ns)) == []
    assert len(list(source.between(at_ns, at_ns + 1_000_000_000))) == 2
    assert len(list(source.between(at_ns + 1_000_000_000, START_NS + 50 * HOUR_NS))) == 1
    assert list(source.between(0, START_NS + 99 * HOUR_NS)) == []


# -- funding -----------------------------------------------------------------------------------------------------------
def test_funding_rates_come_from_the_columns_of_several_sources(tmp_path):
    ms = START_NS // 1_000_000
    path = tmp_path / "BTCUSDT-fundingRate-2020-09.csv"
    path.write_text(f"calc_time,funding_interval_hours,last_funding_rate\n{ms},4,0.0001\n{ms - 1},8,-0.0002\n")
    first, second = funding.read(path, ["BTC-USDT", "ETH-USDT"])
    assert first == Funding((ms - 1) * 1_000_000, "BTC-USDT", -0.0002, 8.0)
    assert second == Funding(START_NS, "BTC-USDT", 0.0001, 4.0)
    path.write_text(f"symbol,fundingTime,fundingRate\nETH/USDT,{ms},0.0001\nDOGE/USDT,{ms},0.1\n")
    assert funding.read(path, ["BTC-USDT", "ETH-USDT"]) == [Funding(START_NS, "ETH-USDT", 0.0001, 8.0)]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a,b\n1,2\n", "must have a header with one of"),
        ("time,rate\n1600000000,x\n", r"f.csv:2: rate: must be a number, was 'x'"),
        ("time,rate\n1600000000,nan\n", "must be a number, was 'nan'"),
        ("time,rate\n1600000000,1.5\n", "must be a ratio between -1 and 1, was '1.5'"),
        ("time,rate\n-5,0.1\n", "must be s, ms, µs or ns since 1970"),
        ("symbol,time,rate\nDOGE,1600000000,0.1\n", "must hold a funding rate of BTC-USD, holds none"),
    ],
)
def test_a_file_of_funding_rates_that_is_none_is_refused(tmp_path, text, rule):
    (path := tmp_path / "f.csv").write_text(text)
    with pytest.raises(ConfigurationException, match=rule):
        funding.read(path, ["BTC-USD"])
