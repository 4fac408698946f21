"""The value test measures what it says: planted edges, fills, naive sizes; and both versions take the same course."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cascade_hours, methods, value
from benchmarks.value_course import FEE, PERIOD, VALUE_USD, Account, Code, Course, claims, naive, planted

V3 = Path(__file__).parents[1] / "golden" / "v3" / "code.zip"
HOURS, SHORT = 700, 260


def course(seed=3, hours=HOURS):
    return Course({coin: methods.walk(place, hours) for place, coin in enumerate(("BTC", "ETH"))}, seed)


# -- what is planted ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("edge", [0.12, 0.06, 0.0, -0.12])
def test_an_edge_comes_out_as_it_was_planted(edge):
    z = np.random.default_rng(1).standard_t(4, size=1_300)
    found = [float(np.mean(z * planted(z, edge, np.random.default_rng(seed)))) for seed in range(30)]
    assert np.mean(found) == pytest.approx(edge, abs=4 * z.std() / math.sqrt(1_300 * 30))


def test_the_return_of_a_claim_is_that_of_the_horizon_after_it_and_its_volatility_was_known():
    of = methods.walk(1, HOURS)
    made = claims(of, "long", 3, np.random.default_rng(0))
    assert made.hour[0] % PERIOD == 3
    assert set(np.diff(made.hour).tolist()) == {PERIOD}
    np.testing.assert_allclose(made.realised, of.close[made.hour + PERIOD] / of.close[made.hour] - 1)
    later = of._replace(close=np.where(np.arange(HOURS) > 400, 2 * of.close, of.close))
    again = claims(later, "long", 3, np.random.default_rng(0))
    before = made.hour <= 400
    np.testing.assert_array_equal(again.volatility[before], made.volatility[before])


def test_momentum_follows_the_last_day():
    of = methods.walk(1, HOURS)
    made = claims(of, "momentum", 0, np.random.default_rng(0))
    np.testing.assert_array_equal(made.side > 0, of.close[made.hour] >= of.close[made.hour - 24])


# -- what comes out ----------------------------------------------------------------------------------------------------
def test_an_account_pays_the_open_and_the_fee_and_remembers_its_deepest_fall():
    account = Account()
    account.fill({"BTC-USD": 1.0}, {"BTC-USD": 10_000.0})
    account.mark({"BTC-USD": 12_000.0})
    account.mark({"BTC-USD": 9_000.0})
    account.fill({"BTC-USD": -1.0}, {"BTC-USD": 9_500.0})
    found = account.result({"BTC-USD": 9_000.0})
    fees = FEE * (10_000 + 19_000)
    assert found["profit"] * VALUE_USD == pytest.approx(-500 + 500 - fees)
    assert found["drawdown"] * VALUE_USD == pytest.approx(3_000)
    assert found["turnover"] * VALUE_USD == pytest.approx(29_000)


def test_naive_kelly_takes_claims_at_their_word_within_the_caps():
    assert naive({("a", "X"): 0.2}) == pytest.approx({"X": 0.05})
    assert naive({("a", "X"): -6.0}) == pytest.approx({"X": -0.15})
    assert naive({("a", "X"): 6.0, ("b", "X"): -6.0, ("c", "X"): 6.0}) == pytest.approx({"X": 0.05})
    assert naive({("a", name): 6.0 for name in "WXYZ"}) == pytest.approx(dict.fromkeys("WXYZ", 0.1))
    many = naive({(strategy, f"{strategy}{name}"): 6.0 for strategy in "abc" for name in "WXYZ"})
    assert sum(many.values()) == pytest.approx(0.8)


# -- the course --------------------------------------------------------------------------------------------------------
def test_every_claim_is_taken_and_settled_and_its_books_trade():
    made, code = course(), Code()
    code.begin(int(made.end_ns[0]) - 3600 * 10**9, {})
    sized, counts = made.sized(HOURS, code)
    assert set(counts) <= {"allocations", "alerts"}, "no dead letters"
    learnt = {key: each.posterior.outcomes for key, each in code.fold.state.posteriors.items()}
    due = {key: len(made.claims[key[1].replace("-", " "), key[2]].hour) for key in learnt}
    assert learnt == due
    assert len(learnt) == 2 * (7 + 4)
    assert sized["honest"]["turnover"] > 0.5
    assert made.naive(HOURS)["honest"]["turnover"] > 0.5


def test_a_setting_that_the_code_does_not_have_is_refused():
    with pytest.raises(KeyError, match=r"market\.nothing: no such setting"):
        Code().begin(1_700_000_000 * 10**9, {"market.nothing": 1})


@pytest.mark.parametrize("zipped", [False, True], ids=["this code", "version 3"])
def test_either_version_takes_the_course_in_a_process_of_its_own(tmp_path, monkeypatch, zipped):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # the bits are the same, and nothing has to be compiled
    folder = value._folder(V3, tmp_path / "v3") if zipped else value.ROOT
    for place, coin in enumerate(("BTC", "ETH")):
        write(tmp_path, coin, methods.walk(place, SHORT))
    job = {"data": str(tmp_path), "coins": ["BTC", "ETH"], "seed": 2, "hours": 0, "settings": {}}
    found = value.course(folder, job)
    assert set(found["records"]) <= {"allocations", "alerts"}
    assert found["records"]["allocations"] > 50
    assert found["naive"]["honest"] == pytest.approx(course(2, SHORT).naive(SHORT)["honest"])
    if not zipped:
        code, made = Code(), course(2, SHORT)
        code.begin(int(made.end_ns[0]) - 3600 * 10**9, {})
        assert found["sized"] == json.loads(json.dumps(made.sized(SHORT, code)[0]))


def write(folder, coin, of):
    """Write candles as the files of ../shared/data have them: newest first, times in ms at the candle's begin."""
    with gzip.open(folder / f"{coin}USDT_1h_2020-08_2022-06.csv.gz", "wt") as file:
        file.write(f"unix,date,symbol,open,high,low,close,Volume {coin},Volume USDT,tradecount\n")
        for row in reversed(list(zip(*(column.tolist() for column in of), strict=True))):
            file.write(f"{row[0] // 10**6 - 3_600_000},,{coin}/USDT,{','.join(map(repr, row[1:]))},0,0\n")


# -- the reports -------------------------------------------------------------------------------------------------------
def test_a_table_compares_seed_by_seed():
    def result(profit):
        each = {"profit": profit, "drawdown": 0.04, "turnover": 10.0}
        return {"sized": dict.fromkeys(value.BOOKS, each), "naive": dict.fromkeys(value.BOOKS, each)}

    text = value.table({"old": [result(0.1), result(0.3)], value.THIS: [result(0.2), result(0.4)]})
    assert "| honest | 20.0 (14.1) / 4.0 · 10 | 30.0 (14.1) / 4.0 · 10 |" in text
    assert "+10.0 ± 0.0" in text


def test_without_candles_the_run_ends_with_an_error_that_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(value, "DATA", tmp_path / "absent")
    with pytest.raises(SystemExit, match="SKIPPED, nothing was measured"):
        value.main([])


def test_the_hours_by_their_listed_numbers_reach_what_they_must():
    for hour in cascade_hours.HOURS:
        level = cascade_hours.RECOMMENDATIONS[cascade_hours.at_once(hour).level]
        assert level.rstrip("%") in {each.strip() for each in hour.must.split("or")}
