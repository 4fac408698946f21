"""Tables: what the csv module and pyarrow read is what was written, and no spreadsheet runs any of it."""

import asyncio
import csv
import io
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import SYMBOLS, Driver, last, priced, signal, targets

from schemas.errors import SizingError
from streams.cli.export import Wanted, _export
from streams.kafka.allocations import merged
from streams.reports import export
from streams.reports.export import (
    DECISIONS,
    WEIGHTS,
    DecisionRecord,
    csv_file,
    csv_text,
    defused,
    export_weight_history,
)
from streams.reports.weight_history import WeightRecord


class Odd(NamedTuple):
    """A record of every kind of column."""

    number: int
    text: str
    perhaps: str | None
    ratio: float
    flag: bool


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", '"', 'a,"b"', "a\nb", "-"]
)
floats = st.floats(allow_nan=False, allow_infinity=False)
odds = st.builds(Odd, st.integers(-(2**63), 2**63 - 1), texts, texts | st.none(), floats, st.booleans())


def day() -> Driver:
    """A short day of two strategies and two portfolios."""
    driver = priced(Driver(partitions=2))
    for number in range(12):
        given_ = {
            "strategy_id": ("momentum", "-carry")[number % 2],
            "symbol": SYMBOLS[number % 3],
            "portfolio_id": ("main", "alpha")[number % 4 == 3],
            "signal_id": f"s-{number}",
        }
        driver.publish("signals", signal(driver.now_ns, valid_for_s=86_400, **given_))
        driver.advance(1.0)
    return driver


DAY = day()
ALLOCATIONS = sorted(DAY.allocations(), key=lambda fields: fields["timestamp_ns"])


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def written(table, rows) -> str:
    file = io.StringIO(newline="")
    csv_text(file, table)(rows)
    return file.getvalue()


@given(st.lists(odds, max_size=8))
def test_csv_is_read_back_as_it_was_written_but_for_the_apostrophes(rows):
    header, *found = read(written(Odd, rows))
    assert header == list(Odd._fields)
    assert found == [
        [str(row.number), defused(row.text), defused(row.perhaps) or "", repr(row.ratio), str(row.flag)] for row in rows
    ]


@given(texts)
def test_no_text_is_left_that_a_spreadsheet_would_run(text):
    cell = defused(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert cell.removeprefix("'") == text.removeprefix("'")
    assert defused(cell) == cell, "once is enough"
    assert (cell == text) is (text[:1] not in {"=", "+", "-", "@", "\t", "\r", "\n"})


@given(floats | st.integers() | st.booleans() | st.none())
def test_numbers_stay_numbers(value):
    assert defused(value) is value


@given(rows=st.lists(odds, max_size=8))
def test_parquet_gives_back_every_value_as_it_was(tmp_path_factory, rows):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path_factory.mktemp("parquet") / "odd.parquet"
    with export.parquet_file(path, Odd) as write:
        write(rows[:3])
        write(rows[3:])
    found = parquet.read_table(path)
    assert found.column_names == list(Odd._fields)
    assert [tuple(row.values()) for row in found.to_pylist()] == rows


def test_without_pyarrow_the_extra_is_named_and_no_file_is_left(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(SizingError, match=r"himari-layer3\[parquet\]"), export.parquet_file(tmp_path / "x", Odd):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "weights.csv"
    path.write_text("before")
    with pytest.raises(TypeError), csv_file(path, Odd) as write:
        write([None])
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    with csv_file(path, Odd):
        assert path.read_text() == "before"
    assert path.read_text() == "number,text,perhaps,ratio,flag\n"


def test_a_place_that_takes_no_file_is_named(tmp_path):
    refusal = pytest.raises(SizingError, match=r"weights.csv: cannot be written: No such file")
    with refusal, csv_file(tmp_path / "nowhere" / "weights.csv", Odd):
        pass


def test_weights_are_one_row_a_cell_of_each_decision(tmp_path):
    rows = [row for fields in ALLOCATIONS for row in WEIGHTS.rows(fields)]
    assert len(rows) == sum(len(fields["cells"]) for fields in ALLOCATIONS if fields["strategy_weights"])
    newest = last(DAY)
    mine = {(row.strategy_id, row.symbol): row for row in WEIGHTS.rows(newest)}
    assert set(mine) == {(cell["strategy_id"], cell["symbol"]) for cell in newest["cells"]}
    assert {row.strategy_id: row.weight for row in mine.values()} == newest["strategy_weights"]
    assert {row.total_allocated_usd for row in mine.values()} == {newest["total_allocated_usd"]}
    path = tmp_path / "weights.csv"
    assert export_weight_history(path, rows) == len(rows) > 0
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert tuple(found[0]) == WeightRecord._fields
    assert {row["strategy_id"] for row in found} == {"momentum", "'-carry"}
    assert [float(row["weight"]) for row in found] == [row.weight for row in rows]


def test_decisions_are_one_row_a_symbol_of_each_decision():
    newest = last(DAY)
    rows = DECISIONS.rows(newest)
    assert {row.symbol: row.notional_usd for row in rows} == targets(newest)
    for row in rows:
        assert (row.decision_id, row.sequence, row.portfolio_id) == (newest["decision_id"], newest["sequence"], "main")
        assert (row.trigger_kind, row.trigger_id) == ("signal", newest["trigger"]["id"])
        assert (row.gross_usd, row.net_usd) == (newest["totals"]["gross_usd"], newest["totals"]["net_usd"])
        assert row.bound.split(";") == (newest["bound"] or [""])
        assert row.utilization_pct == newest["utilization_pct"] == pytest.approx(row.gross_usd / 100_000, abs=1e-9)
        assert row.timestamp_iso.startswith("20")
    assert sum(abs(row.notional_usd) for row in rows) == pytest.approx(newest["totals"]["gross_usd"])


def test_caps_that_bound_share_a_cell_and_come_apart_again():
    caps = ["symbol:BTC-USD", "strategy:-carry"]
    (row, *_) = DECISIONS.rows({**last(DAY), "bound": caps})
    assert row.bound == "symbol:BTC-USD;strategy:-carry"
    header, found = read(written(DecisionRecord, [row]))
    assert found[header.index("bound")].split(";") == caps


def test_a_decision_that_holds_nothing_is_a_row_without_a_symbol():
    (row,) = DECISIONS.rows({**last(DAY), "targets": {}})
    assert (row.symbol, row.notional_usd, row.weight, row.quantity) == (None, None, None, None)
    assert read(written(DecisionRecord, [row]))[1][5:9] == ["", "", "", ""]


def test_an_allocation_of_before_there_were_weights_gives_no_rows_and_is_counted():
    old = {key: value for key, value in last(DAY).items() if key not in {"cells", "strategy_weights", "drift"}}
    assert exported(WEIGHTS, [old, last(DAY)])[1].without_rows == 1
    assert len(DECISIONS.rows(old)) == len(old["targets"])


async def stream(found):
    for fields in found:
        yield fields


def exported(table, found, portfolio=None, since=0, until=2**63):
    rows = []
    wanted = Wanted(table, portfolio, since, until)
    return rows, asyncio.run(_export(stream(found), wanted, rows.extend))


@given(st.integers(0, len(ALLOCATIONS)), st.integers(0, len(ALLOCATIONS)))
def test_from_is_in_and_to_is_out(first, end):
    times = [*(fields["timestamp_ns"] for fields in ALLOCATIONS), 2**62]
    rows, told = exported(DECISIONS, ALLOCATIONS, since=times[first], until=times[end])
    expected = [fields for fields in ALLOCATIONS if times[first] <= fields["timestamp_ns"] < times[end]]
    assert {row.decision_id for row in rows} == {fields["decision_id"] for fields in expected}
    assert (told.rows, told.allocations) == (len(rows), len(expected))


@given(st.lists(st.lists(st.integers(0, 50)).map(sorted), max_size=4))
def test_streams_are_merged_by_time_and_nothing_is_lost(times):
    streams = [stream([{"timestamp_ns": at, "from": n} for at in own]) for n, own in enumerate(times)]

    async def all_of() -> list[tuple[int, int]]:
        return [(fields["timestamp_ns"], fields["from"]) async for fields in merged(streams)]

    assert asyncio.run(all_of()) == sorted((at, n) for n, own in enumerate(times) for at in own)


def test_the_columns_are_the_missions():
    assert " ".join(WeightRecord._fields) == (
        "timestamp_ns timestamp_iso strategy_id symbol weight total_allocated_usd num_strategies drift_alert"
    )
    assert " ".join(DecisionRecord._fields) == (
        "timestamp_ns timestamp_iso decision_id portfolio_id sequence symbol notional_usd weight quantity "
        "trigger_kind trigger_id bound gross_usd net_usd utilization_pct"
    )
