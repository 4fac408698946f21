"""The report, the columns and the command say the same, and a wrong request leaves nothing."""

import re

import numpy as np
import orjson
import pandas as pd
import pytest
from click.testing import CliRunner
from html_pages import SAFE, Page
from markets import HOUR_NS, START_NS, of_rows, said, settings, walk, written
from pyarrow import parquet

import himari
from config.settings import Settings
from schemas.errors import ConfigurationException, InvalidSignalException, VerificationMismatch
from streams.backtest import charts, figures, statistics
from streams.backtest.archive_writer import ArchiveWriter
from streams.backtest.execute import execute
from streams.backtest.request import Request
from streams.cli import main
from streams.kafka import verification

HOURS = 24 * 70
CANDLES = [walk("BTC-USD", HOURS, 1), walk("ETH-USD", HOURS, 2)]
SIGNALS = [
    said(hour, symbol, action="buy" if hour % 36 else "sell")
    for hour in range(2, HOURS - 20, 12)
    for symbol in ("BTC-USD", "ETH-USD")
]


@pytest.fixture(scope="module")
def result():
    return execute(Request(CANDLES, settings(), signals=SIGNALS, fee_ratio=0.001))


def run(*arguments):
    """Return exit code, stdout and stderr of a command, as a shell gets them."""
    code = 0
    with CliRunner().isolation() as (out, err, _):
        try:
            main(list(map(str, arguments)))
        except SystemExit as done:
            code = done.code
        return code, out.getvalue().decode(), err.getvalue().decode()


# -- the figures -------------------------------------------------------------------------------------------------------
def test_the_figures_are_those_of_the_columns(result):
    found, equity, trades = result.figures["result"], result.equity, result.trades
    assert found["final_usd"] == equity["equity"][-1]
    assert found["return"] == pytest.approx(equity["equity"][-1] / 100_000.0 - 1.0)
    assert found["max_drawdown"] == pytest.approx(equity["drawdown"].max())
    assert found["trades"] == len(trades["symbol"]) > 50
    assert found["costs_usd"] == pytest.approx(0.001 * float(np.abs(trades["quantity"] * trades["price"]).sum()))
    daily = pd.Series(equity["equity"], equity["time"] - np.timedelta64(1, "s")).resample("D").last()
    returns = daily.to_numpy() / np.concatenate([[100_000.0], daily.to_numpy()[:-1]]) - 1.0
    assert found["sharpe_a_year"] == pytest.approx(returns.mean() / returns.std(ddof=1) * 365**0.5)
    months = (1 + pd.Series(returns, daily.index)).groupby(daily.index.to_period("M")).prod() - 1
    assert [each["return"] for each in result.figures["calendar"]] == pytest.approx(months.to_list())
    assert [(each["year"], each["month"]) for each in result.figures["calendar"]] == [(2020, 9), (2020, 10), (2020, 11)]


def test_columns_are_of_one_length_and_pandas_and_parquet_take_them(result, tmp_path):
    for name in ("equity", "decisions", "trades", "earned"):
        columns = getattr(result, name)
        assert len({len(column) for column in columns.values()}) == 1
        assert list(pd.DataFrame(columns).columns) == list(columns)
    paths = result.to_parquet(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    table = parquet.read_table(tmp_path / "new/decisions.parquet")
    assert table.num_rows == result.figures["journal"]["allocations"]
    assert table.column("decision_id")[0].as_py().startswith("BACKTEST-0-")


def test_claims_are_held_against_what_came(result):
    (found,) = result.figures["claims"]
    settled = result.run.settlement.settled
    x = np.array([each.claimed / each.volatility for each in settled])
    y = np.array([each.realised / each.volatility for each in settled])
    assert (found["claims"], found["claimed"]) == (len(SIGNALS), pytest.approx(0.8 * 0.02 / 0.03))
    assert found["slope"] == pytest.approx(np.linalg.lstsq(x[:, None], y, rcond=None)[0][0])


def test_the_conformal_interval_covers_what_it_promises(result):
    (found,) = result.figures["claims"]
    assert result.run.coverage.total["mine"] >= len(SIGNALS) - 2 * 20
    assert found["covered"] == pytest.approx(0.9, abs=0.06)
    narrow = settings(position_sizing={"conformal_prediction": {"coverage": 0.6}})
    other = execute(Request(CANDLES, narrow, signals=SIGNALS), check=False).figures["claims"][0]
    assert other["covered"] == pytest.approx(0.6, abs=0.08)


# -- the page ----------------------------------------------------------------------------------------------------------
def test_the_page_is_whole_small_and_loads_nothing(result):
    text = result.to_html()
    found = Page(text)
    assert {element for element, _ in found.elements} <= SAFE | {"polygon"}
    assert not re.search(r"url\(|https?:|@import|<script", text)
    assert len(text) < 2_000_000
    assert "No look-ahead: the candles until" in found.text
    assert f"{result.figures['result']['final_usd']:,.0f}" in found.text
    for sentence in (*result.figures["verdicts"], *result.remarks):
        assert sentence in found.text
    for each in result.figures["compared"]:
        assert f"{100 * each['return']:+.1f} %" in found.text


def test_a_name_cannot_forge_the_page():
    hostile = "<script>alert(1)</script>"
    candles = [walk("BTC-USD", 60, 1)]
    with pytest.raises(InvalidSignalException):
        execute(Request(candles, settings(), signals=[said(3, strategy_id=hostile)]))

    def named(history):
        fields = said(1, timestamp_ns=history.now_ns)
        del fields["strategy_id"]
        return fields

    named.__name__ = hostile
    found = execute(Request(candles, settings(), strategies=[named]))
    assert found.figures["strategies"] == ["scriptalert1/script"]
    assert "<script" not in found.to_html()


def test_a_line_has_few_points_and_keeps_its_extremes():
    values = np.random.default_rng(1).normal(size=100_000).cumsum()
    kept = charts.thinned([values])
    assert len(kept) <= charts.POINTS + 2
    assert (kept[0], kept[-1]) == (0, 99_999)
    assert {int(values.argmin()), int(values.argmax())} <= set(kept)


# -- words -------------------------------------------------------------------------------------------------------------
def test_without_a_trade_it_says_so_and_concludes_nothing(tmp_path):
    signals = [said(hour, expected_return=0.0) for hour in range(3, 40, 6)]
    found = execute(Request([walk("BTC-USD", 60, 1)], settings(), signals=signals))
    assert found.figures["verdicts"][0].startswith(f"No trade was made; sizes were 0 for no edge ({len(signals)})")
    assert found.figures["result"]["sharpe_a_year"] is None
    assert found.figures["statistics"]["sharpe_interval"] is None
    found.write_report(tmp_path / "r.html")
    assert "No trade was made" in (tmp_path / "r.html").read_text()


def test_noise_is_not_told_from_chance(result):
    low, high = result.figures["statistics"]["sharpe_interval"]
    assert low < 0 < high
    assert any("cannot tell profit from chance" in text for text in result.figures["verdicts"])


def test_without_arch_the_page_says_what_is_missing(monkeypatch):
    def missing(_returns):
        raise ImportError

    monkeypatch.setattr(statistics, "bootstrapped", missing)
    found = execute(Request(CANDLES, settings(), signals=SIGNALS), check=False)
    assert found.figures["statistics"]["sharpe_interval"] is None
    assert found.figures["statistics"]["probabilistic_sharpe"] is not None
    assert any("himari-layer3[backtest]" in text for text in found.figures["verdicts"])
    assert figures.capital_of(found.run) == 100_000.0


# -- the command and the library ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("candles")
    candles = [walk("BTC-USD", 200, 1), walk("ETH-USD", 200, 2)]
    signals = folder / "signals.jsonl"
    signals.write_bytes(b"\n".join(orjson.dumps(said(hour)) for hour in range(60, 190, 4)))
    return [written(folder, each) for each in candles], signals


def test_the_command_leaves_a_report_and_a_journal_that_is_proved(files, tmp_path):
    paths, signals = files
    report, archive = tmp_path / "report.html", tmp_path / "journal"
    code, out, err = run("backtest", *paths, "--signals", signals, "--report", report, "--archive", archive)
    assert code == 0, err
    assert "no look-ahead: the candles until" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal", "report.html"]
    code, out, err = run("audit", "verify", "--archive", archive)
    assert code == 0, err
    count = int(re.search(r"verified: (\d+) allocations recomputed from the journal, all bytes identical", out)[1])
    assert count >= 33
    code, out, _ = run("audit", "verify", "--archive", archive, "--portfolio", "main", "--json")
    assert (code, orjson.loads(out)["checked"]) == (0, count)
    code, out, _ = run("journal", "check", archive)
    assert (code, out.startswith("intact: ")) == (0, True)
    for path in (archive / "allocations").rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    code, out, err = run("audit", "verify", "--archive", archive)
    assert (code, "was changed: its sha256 must be" in out + err) == (4, True), out + err


def test_an_allocation_that_was_changed_before_it_was_archived_is_not_archived(tmp_path, monkeypatch):
    keep = ArchiveWriter.add

    def forging(self, topic, key, value, at_ns):
        keep(self, topic, key, value.replace(b'"final":true', b'"final":false'), at_ns)

    monkeypatch.setattr(ArchiveWriter, "add", forging)
    with pytest.raises(VerificationMismatch, match="not archived from entry"):
        execute(Request([walk("BTC-USD", 60, 1)], settings(), signals=[said(5)]), archive=tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_long_journal_is_archived_segment_by_segment(tmp_path, monkeypatch):
    small = lambda folder: ArchiveWriter(folder, 50)  # noqa: E731
    monkeypatch.setattr("streams.backtest.execute.ArchiveWriter", small)
    found = execute(
        Request(CANDLES, settings(), signals=SIGNALS[:100], until_ns=START_NS + 700 * HOUR_NS),
        archive=tmp_path / "a",
        check=False,
    )
    checked = verification.verify(settings(), archive=str(tmp_path / "a"), processes=1)
    assert (checked.verdict.ok, checked.verdict.checked) == (True, found.figures["journal"]["allocations"])
    assert len(list((tmp_path / "a/journal").rglob("*.parquet"))) > 10


def test_the_library_gives_what_the_command_gives(files):
    paths, signals = files
    code, out, err = run("backtest", *paths, "--signals", signals, "--json", "--fee", "0.001", "--from", "2020-09-16")
    assert code == 0, err
    result = himari.backtest(paths, signals=signals, fee=0.001, since="2020-09-16")
    assert orjson.loads(out) == orjson.loads(orjson.dumps(result.figures, option=orjson.OPT_SERIALIZE_NUMPY))
    assert repr(result).startswith("<Result: ")


def test_strategies_by_name_and_function(files, tmp_path, monkeypatch):
    (tmp_path / "bets.py").write_text(
        "def on_bar(history):\n"
        "    for symbol in history.ended:\n"
        "        yield dict(symbol=symbol, action='buy', confidence=.6, risk_score=.2, regime='ranging',\n"
        "                   expected_return=.01, predicted_volatility=.02)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code, out, err = run("backtest", files[0][0], "--strategy", "momentum", "--strategy", "bets:on_bar", "--json")
    assert code == 0, err
    found = orjson.loads(out)
    assert found["strategies"] == ["momentum", "on_bar"]
    assert found["signals"]["sent"] > 300
    assert {each["strategy"] for each in found["claims"]} == {"momentum", "on_bar"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--strategy", "trend"), "--strategy: must be one of momentum, mean-reversion"),
        (("--strategy", "nowhere:f"), "nowhere:f must be importable"),
        (("--strategy", "momentum", "--strategy", "momentum"), "must have different names, were momentum, momentum"),
        (("--signals", "SIGNALS", "--strategy", "momentum"), "--signals: must not stand beside --strategy"),
        (
            ("--from", "2030-01-01"),
            "period: must hold a candle between --from and --to; the files reach from 2020-09-13",
        ),
        (("--to", "2001-01-01"), "period: must hold a candle between"),
        (("--signals", "SIGNALS", "--to", "2020-09-14"), "period: must hold a signal; the file reaches from"),
        (("--fee", "0.7"), "--fee: must be a ratio in [0, 0.5), was 0.7"),
        (("--slippage", "-1"), "--slippage: must be a ratio in [0, 0.5), was -1.0"),
        (("--delay", "-1"), "--delay: must not be negative"),
        (("--report", "no/such/folder.html"), "must lie in an existing folder"),
        (("--archive", "."), ": must be a new or empty folder for the archive"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(files, tmp_path, monkeypatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").touch()
    paths, signals = files
    given = [str(signals) if each == "SIGNALS" else each for each in arguments]
    outputs = ["--report", tmp_path / "r.html"] if "--report" not in given else []
    outputs += ["--archive", tmp_path / "a"] if "--archive" not in given else []
    code, out, err = run("backtest", *paths, *given, *outputs)
    assert (code, out) == (5, "")
    assert text in err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


def test_a_strategy_that_fails_half_way_leaves_nothing(tmp_path):
    def failing(history):
        if len(history["BTC-USD"]) > 40:
            raise ValueError("no more ideas")

    request = Request([walk("BTC-USD", 60, 1)], settings(), strategies=[failing])
    with pytest.raises(InvalidSignalException, match="raised ValueError: no more ideas"):
        execute(request, archive=tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_settings_are_fitted_to_the_candles_and_it_is_said():
    day = walk("BTC-USD", 80, 1, width_s=86_400)
    sent = [said(24 * number, horizon_s=86_400.0 * 2) for number in range(30, 60, 5)]
    found = execute(Request([day], settings(rl={"enabled": True}), signals=sent))
    assert any("validation_criteria.max_price_age_s is 172800" in text for text in found.remarks)
    assert any("market.bar_s is 86400" in text for text in found.remarks)
    assert any("the policy is not asked" in text for text in found.remarks)
    assert found.figures["result"]["trades"] > 0


def test_contracts_are_refused_and_gaps_are_told():
    contracts = {"position_sizing": {"contracts": {"BTC-USD": {"size": 0.01}}}}
    with pytest.raises(ConfigurationException, match="must not name BTC-USD: a backtest trades coins"):
        execute(Request([walk("BTC-USD", 60, 1)], Settings.model_validate(contracts), signals=[said(5)]))
    rows = walk("BTC-USD", 60, 1).rows
    gapped = of_rows("BTC-USD", rows[:20] + rows[25:])
    gapped = gapped._replace(found=gapped.found._replace(gaps=1))
    found = execute(Request([gapped], settings(), signals=[said(5)]))
    assert any("the candles have 1 gaps" in text for text in found.remarks)


def test_a_regime_that_the_settings_do_not_know_is_refused_by_sizing_and_told():
    sent = [said(5), said(9, regime="sideways")]
    found = execute(Request([walk("BTC-USD", 60, 1)], settings(), signals=sent))
    assert found.figures["signals"]["refused"]["signals"] == 1
    assert any("1 records of signals were refused" in text and "sideways" in text for text in found.remarks)
