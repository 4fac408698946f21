"""The benchmark of backtests plants what it says, and times what it says."""

import pytest

from benchmarks import backtest
from config.settings import Settings
from streams.backtest.execute import execute
from streams.backtest.request import Request

real = pytest.mark.skipif(not backtest.DATA.is_dir(), reason="no real candles beside the project")


def test_minutes_without_signals_are_timed():
    text = backtest.timed([backtest.walk(300)], [backtest.still(300)])
    assert text.startswith("1 symbols, 300 candles, 1 signals: ")


@real
def test_the_planted_edge_is_what_the_claims_bring():
    slopes = {}
    for name in backtest.EDGES:
        market = backtest.real("BTC", 3_000)
        signals = backtest.signals_of("BTC", name, 0, market.symbol, market.end_ns(market.rows[-1]))
        found = execute(Request([market], Settings(), signals=signals), check=False).figures
        (claims,) = found["claims"]
        slopes[name] = claims["slope"]
        assert claims["claims"] >= 230
    assert slopes["honest"] > 0.3 > slopes["noise"] > -0.6 > slopes["harmful"] - 0.3


@real
def test_the_table_has_a_row_for_each_coin_and_edge():
    text = backtest.planted_table(["BTC"], 1, 600)
    assert [line.split(" | ")[0] for line in text.splitlines()[2:]] == ["| BTC honest", "| BTC noise", "| BTC harmful"]
    assert "| HIMARI | fixed fraction | volatility target | full Kelly |" in text


def test_without_candles_the_run_ends_with_an_error_that_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(backtest, "DATA", tmp_path / "absent")
    with pytest.raises(SystemExit, match="SKIPPED, nothing was measured"):
        backtest.main(["--speed"])
