"""Books of several strategies and symbols: what every allocation holds to, whatever came before.

A script is played on the Driver; then its journal is folded once more, and each decision is looked at beside its bytes.
"""

from itertools import pairwise

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from worlds import PRICES, SYMBOLS, TRUSTING, Driver, answers, last, play, scripts, signal, signals, tick, unit

from engines.fold import apply
from engines.models.policy_gate import Gate
from engines.parameters import DecisionParams
from engines.pipeline.cell_sizing import STAGES
from engines.pipeline.publish import Published
from engines.state.partition import State
from schemas.allocation import Allocation
from streams.journal import entries as journal

STRATEGIES = ("carry", "momentum", "reversion")
PORTFOLIOS = ("main", "alpha")
SHRINKING = {"conformal", "risk_score", "cascade", "drawdown", "ensemble", "portfolio", "caps", "limits", "cut", "lots"}
"""Stages in which no cell grows; sentiment and regime may raise one, and the band keeps what is held."""
MAY_BE_NULL = {"revises", "rl", "diversification", "valid_until_ns", "price", "quantile"}
CARRIED = "unpriced"
"""Stage of a full decision that is there where a cell has no fresh price: it stands as it was published."""
BEFORE = {
    "full": [*STAGES, "ensemble", "portfolio", "caps", "rl"],
    "scale_down": ["held", "cut", "caps"],
    "reuse": ["kept", "caps", "rl"],
}
"""Stages before the last two, by how a decision comes by its sizes."""
EXAMPLES = settings().max_examples // 2
MULTIPLIERS = (1.0, 0.5, 0.25, 0.0)


# -- worlds ----------------------------------------------------------------------------------------------------------
def said(strategy, symbol, action, size, confidence):
    """Return what a strategy says, as the scripts of the properties have it."""
    return {
        "strategy_id": strategy,
        "symbol": symbol,
        "portfolio_id": "main",
        "action": action,
        "size": size,
        "confidence": confidence,
        "risk_score": 0.0,
        "regime": "ranging",
        "predicted_volatility": 0.01,
        "sentiment_score": None,
        "valid_for_s": 600,
    }


def settled(bars=30):
    """Return a driver whose coins have moved together for half an hour of bars of a minute."""
    tree = TRUSTING.model_dump()
    tree["market"]["bar_s"] = 60
    tree["rl"] |= {"enabled": True, "mode": "live", "deadline_s": 30.0}
    driver = Driver(DecisionParams.model_validate(tree), partitions=1)
    trust(driver.processors["journal", 0][0].state)
    for bar in range(bars):
        shared = 0.002 * (bar * 3 % 7 - 3)
        moves = [1.0 + shared + 0.001 * (bar * (place + 2) % 5 - 2) for place in range(len(SYMBOLS))]
        ticks = [tick(driver.now_ns, name, PRICES[name] * move) for name, move in zip(SYMBOLS, moves, strict=True)]
        driver.publish("prices", {"ticks": ticks})
        driver.advance(60.0)
    driver.publish("prices", {"ticks": [tick(driver.now_ns, name) for name in SYMBOLS]})
    driver.advance(2.0)
    return driver


def trust(state):
    """Open the gate of a policy by hand, where evidence would."""
    for portfolio in PORTFOLIOS:
        state.gates.put((portfolio,), Gate(status="open", windows=100, lower=0.1, difference_square_sum=0.01))


claims = st.fixed_dictionaries(
    {
        "strategy_id": st.sampled_from(STRATEGIES),
        "symbol": st.sampled_from(SYMBOLS),
        "portfolio_id": st.sampled_from(PORTFOLIOS),
        "action": st.sampled_from(("buy", "buy", "sell")),
        "size": st.sampled_from((0.003, 0.004, 0.006, 0.02)),
        "confidence": st.sampled_from((0.6, 0.8, 1.0)),
        "risk_score": unit,
        "regime": st.sampled_from(("ranging", "trending_up", "high_volatility")),
        "predicted_volatility": st.sampled_from((0.01, 0.02, 0.03)),
        "sentiment_score": st.sampled_from((None, 0.9)),
        "valid_for_s": st.sampled_from((600, 3600)),
    }
)
calm = st.one_of(
    st.tuples(st.just("signal"), claims),
    st.tuples(st.just("signal"), signals),
    st.tuples(st.just("price"), st.tuples(st.sampled_from(SYMBOLS), st.floats(0.99, 1.01))),
    st.tuples(st.just("cascade"), st.tuples(st.sampled_from((*SYMBOLS, None)), unit, st.just(0.0))),
    st.tuples(st.just("outcome"), st.tuples(st.integers(0, 20), st.floats(-0.05, 0.05))),
    st.tuples(st.just("value"), st.tuples(st.sampled_from(PORTFOLIOS), st.floats(80_000, 120_000))),
    answers,
    st.tuples(st.just("pass"), st.sampled_from((0.5, 2.0))),
)
advice = st.tuples(st.just("answer"), st.tuples(st.just(0), st.sampled_from((-0.5, -0.2, 0.3)), st.just(0.9)))
opening = st.lists(
    st.one_of(
        claims.map(lambda claim: [("signal", claim)]), st.tuples(claims.map(lambda claim: ("signal", claim)), advice)
    ),
    min_size=4,
    max_size=12,
).map(lambda parts: [event for part in parts for event in part])
positions = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(SYMBOLS), st.floats(-0.2, 0.2).map(lambda share: round(share, 3)), min_size=1),
)
"""Shares of 100,000 that each symbol is known to be held at."""
plays = st.tuples(
    opening,
    positions,
    st.one_of(st.lists(st.one_of(calm, answers, advice), max_size=20), scripts),
)


def played(given_):
    first, known, script = given_
    driver = settled()
    play(driver, first)
    if known is not None:
        quantities = {symbol: share * 100_000.0 / PRICES[symbol] for symbol, share in known.items()}
        body = {"portfolio_id": "main", "timestamp_ns": driver.now_ns, "quantities": quantities}
        driver.publish("positions", body)
        driver.advance(1.0)
    play(driver, script, already=len(first))
    return driver


def folded(driver):
    """Fold the journal once more; yield each decision beside its bytes, and the prices it was made at."""
    for partition in range(driver.partitions):
        state = State(partition)
        trust(state)
        for record in driver.cluster.log("journal", partition).read(0):
            for published in apply(state, journal.read(record.offset, record.value)).allocations:
                markets = state.markets
                yield published, {name: each.bars.last_price for (name,), each in markets.items() if each.bars}


def decided(driver) -> list[Published]:
    return [published for published, _ in folded(driver)]


def sums(keys, cents):
    totals = {}
    for key, size in zip(keys, cents, strict=True):
        totals[key] = totals.get(key, 0) + size
    return totals


# -- caps ------------------------------------------------------------------------------------------------------------
@settings(max_examples=EXAMPLES)
@given(plays)
def test_no_cap_is_broken_by_what_is_published(given_):
    for decision, _, _ in decided(played(given_)):
        cells, limits = decision.holdings.cells, decision.limits
        stood = decision.holdings.intended if decision.trigger.mode == "scale_down" else decision.holdings.cents
        adds = any(abs(size) > abs(was) for size, was in zip(decision.cents, stood, strict=True))
        slack = 1.0 if adds else 1.01
        value_cents = 100.0 * slack * decision.book.value_usd
        sizes = [abs(size) for size in decision.cents]
        caps = [limits.position * target.cap_factor * value_cents for target in decision.targets]
        assert all(size <= cap for size, cap in zip(sizes, caps, strict=True))
        symbols = [symbol for _, symbol in cells]
        for symbol, gross in sums(symbols, sizes).items():
            assert gross <= max(cap for name, cap in zip(symbols, caps, strict=True) if name == symbol)
        for gross in sums([strategy for strategy, _ in cells], sizes).values():
            assert gross <= limits.strategy * value_cents
        assert sum(sizes) <= limits.gross * value_cents
        sides = [(symbol, size > 0) for symbol, size in zip(symbols, decision.cents, strict=True)]
        assert all(gross <= slack * limits.maximum_cents for gross in sums(sides, sizes).values())


@settings(max_examples=EXAMPLES)
@given(plays)
def test_the_caps_are_scaled_by_every_cut_in_force(given_):
    before = {}
    for decision, _, _ in decided(played(given_)):
        rows = dict(zip(decision.waterfall.names, decision.waterfall.columns, strict=True))
        for index, (size, target) in enumerate(zip(decision.sizes, decision.targets, strict=True)):
            cell = decision.holdings.cells[index]
            key = (decision.portfolio_id, *cell)
            if decision.trigger.full:
                carried = CARRIED in rows and size is not None and size.bet is None and key in before
                assert carried or target.cap_factor == pytest.approx(_factor(size)), cell
            elif decision.trigger.mode == "scale_down" and key in before:
                was = before[key]
                assert target.cut <= was.cut
                now, then = rows["cut"][index], rows["held"][index]
                if cell[1] in decision.kept:
                    assert (target.cut, target.cap_factor) == (was.cut, was.cap_factor), "nothing was taken yet"
                else:
                    assert now == pytest.approx(then * target.cut / was.cut, abs=1.0 + 1e-9) or not now, cell
                assert target.cap_factor * was.cut == pytest.approx(was.cap_factor * target.cut), cell
            before.pop(key, None)
            if target.cents:
                before[key] = target


def _factor(size):
    """Return c of a cell from what its stages report: 0 where it is not live."""
    if size is None or size.bet is None:
        return 0.0
    square = size.bet.kelly.mean**2
    narrowing = (size.bet.kelly.variance + square) / (size.bet.conformal.variance + square)
    kept = narrowing * size.risk_multiplier * min(1.0, size.sentiment.multiplier) * min(1.0, size.regime_multiplier)
    return kept * MULTIPLIERS[size.level] * size.drawdown_multiplier


# -- stages ----------------------------------------------------------------------------------------------------------
@settings(max_examples=EXAMPLES)
@given(plays)
def test_no_cell_grows_where_it_may_not_and_none_turns(given_):
    for decision, _, _ in decided(played(given_)):
        waterfall = decision.waterfall
        stages = list(zip(waterfall.names, waterfall.columns, strict=True))
        for (_, before), (name, after) in pairwise(stages):
            for cell, was, now in zip(decision.holdings.cells, before, after, strict=True):
                assert was * now >= 0, (name, cell)
                assert name not in SHRINKING or abs(now) <= abs(was), (name, cell)
                assert name != CARRIED or was in {0, now}, cell
                assert name != "rl" or abs(now) <= 1.3 * abs(was), cell
        if CARRIED not in waterfall.names:
            for was, now in zip(waterfall.columns[0], waterfall.last, strict=True):
                assert was * now > 0 or not now


@settings(max_examples=EXAMPLES)
@given(plays)
def test_both_waterfalls_sum_exactly_to_what_is_published(given_):
    for decision, _, value in decided(played(given_)):
        fields = orjson.loads(value)
        stages = [*BEFORE[decision.trigger.mode], "limits", "band", "lots"]
        if CARRIED in decision.waterfall.names:
            stages.insert(stages.index("caps"), CARRIED)
        whole = fields["portfolio_waterfall"]
        assert [row["stage"] for row in whole] == stages
        columns = dict(zip(decision.waterfall.names, decision.waterfall.columns, strict=True))
        for row in whole:
            assert row["net_cents"] == sum(columns[row["stage"]])
            assert row["gross_cents"] == sum(map(abs, columns[row["stage"]]))
        cells = {(row["strategy_id"], row["symbol"]): row["cents"] for row in fields["cells"]}
        assert whole[-1]["net_cents"] == sum(cells.values())
        assert whole[-1]["gross_cents"] == sum(map(abs, cells.values()))
        assert [fields["totals"][name] for name in ("net_usd", "gross_usd")] == [
            whole[-1][name] / 100 for name in ("net_cents", "gross_cents")
        ]
        nets = sums([symbol for _, symbol in cells], cells.values())
        for symbol, target in fields["targets"].items():
            if symbol in fields["unmanaged"]:
                assert target["quantity"] == decision.unmanaged[symbol]
                continue
            net = nets.get(symbol, 0)
            assert target["notional_usd"] == (net / 100 if abs(net) >= decision.limits.minimum_cents else 0.0)
        steps = fields["waterfall"]
        if steps:
            assert [row["stage"] for row in steps] == stages
            assert steps[0]["before_cents"] == 0
            assert all(one["after_cents"] == two["before_cents"] for one, two in pairwise(steps))
            assert steps[-1]["after_cents"] == cells.get((fields["strategy_id"], fields["symbol"]), 0)


@settings(max_examples=EXAMPLES)
@given(plays)
def test_every_symbol_ends_at_its_limits_or_as_it_stood_in_coins_that_are_worth_it(given_):
    for (decision, _, value), prices in folded(played(given_)):
        rows = dict(zip(decision.waterfall.names, decision.waterfall.columns, strict=True))
        symbols = [symbol for _, symbol in decision.holdings.cells]
        stood = decision.holdings.intended if decision.trigger.mode == "scale_down" else decision.holdings.cents
        for symbol, target in orjson.loads(value)["targets"].items():
            if symbol in decision.unmanaged:
                continue
            mine = [index for index, name in enumerate(symbols) if name == symbol]
            end = stood if symbol in decision.kept else rows["limits"]
            ends = [end[index] for index in mine]
            if decision.trigger.mode == "scale_down" and decision.holdings.settled and symbol not in decision.kept:
                net, have = sum(ends), sum(decision.holdings.cents[index] for index in mine)
                have = have if have * net > 0 else 0
                if net != sum(stood[index] for index in mine) and abs(have) < abs(net):
                    ends = [int(size * abs(have) / abs(net)) for size in ends]
            got = [decision.cents[index] for index in mine]
            assert got == pytest.approx(ends, abs=1.0 + len(mine)), symbol
            if symbol in prices:
                assert round(100 * target["quantity"] * prices[symbol]) == round(100 * target["notional_usd"]), symbol


# -- what several make of each other ---------------------------------------------------------------------------------
@settings(max_examples=EXAMPLES)
@given(plays)
def test_weights_are_shares_and_penalties_too(given_):
    for decision, _, value in decided(played(given_)):
        fields = orjson.loads(value)
        weights, penalties = fields["strategy_weights"], fields["correlation_penalties"]
        live = {
            strategy
            for (strategy, _), size in zip(decision.holdings.cells, decision.sizes, strict=True)
            if size is not None and size.bet is not None
        }
        assert set(weights) == live
        assert not weights or sum(weights.values()) == pytest.approx(1.0)
        assert all(0.0 < weight <= 1.0 for weight in weights.values())
        assert all(0.0 <= penalty <= 1.0 for penalty in penalties.values())
        symbols = {symbol for _, symbol in decision.holdings.cells}
        assert set(penalties) == (symbols if decision.trigger.full else set())
        assert 0.0 <= fields["max_drift_pct"] <= 1.0
        assert fields["drifted_strategies"] == sorted(fields["drifted_strategies"])
        found = fields["diversification"]
        if found is not None:
            assert found["ratio"] >= 1.0 - 1e-12
            held = {symbol for symbol, net in _nets(decision).items() if net}
            assert found["score"] * len(held) == pytest.approx(found["ratio"] ** 2)


def _nets(decision):
    return sums([symbol for _, symbol in decision.holdings.cells], decision.cents)


@settings(max_examples=EXAMPLES)
@given(plays)
def test_what_a_penalty_says_is_what_each_cell_lost(given_):
    for decision, _, _ in decided(played(given_)):
        if not decision.trigger.full:
            continue
        columns = dict(zip(decision.waterfall.names, decision.waterfall.columns, strict=True))
        rows = zip(decision.holdings.cells, columns["ensemble"], columns["portfolio"], strict=True)
        for (_, symbol), was, now in rows:
            assert abs(now - int(was * (1.0 - decision.penalties[symbol]))) <= 1
        gross = sum(map(abs, sums([s for _, s in decision.holdings.cells], columns["portfolio"]).values()))
        assert gross <= decision.limits.gross * 100.0 * decision.book.value_usd


# -- bytes -----------------------------------------------------------------------------------------------------------
@settings(max_examples=EXAMPLES)
@given(plays)
def test_the_bytes_come_again_and_hold_a_number_where_one_is_due(given_):
    driver = played(given_)
    again = [published.value for published in decided(driver)]
    assert again == [record.value for record in driver.read("allocations")]
    for value in again:
        Allocation.model_validate_json(value)
        _no_null(orjson.loads(value))


def _no_null(tree, name=""):
    if isinstance(tree, dict):
        for key, each in tree.items():
            _no_null(each, key)
    elif isinstance(tree, list):
        for each in tree:
            _no_null(each, name)
    else:
        assert tree is not None or name in MAY_BE_NULL, name


# -- a decision again ------------------------------------------------------------------------------------------------
RELEASED_WHILE_KEPT = (
    (
        [
            *[("signal", said("carry", "BTC-USD", "buy", 0.003, 0.6))] * 8,
            ("signal", said("carry", "BTC-USD", "buy", 0.006, 0.6)),
            ("signal", said("carry", "ETH-USD", "buy", 0.006, 0.8)),
            ("signal", said("momentum", "ETH-USD", "sell", 0.003, 1.0)),
        ],
        None,
        [],
    ),
    said("carry", "ETH-USD", "buy", 0.003, 0.6),
)
"""A cell is kept only because it stands, and the portfolio stage leaves nothing of it: then it stands no more."""


@settings(max_examples=EXAMPLES)
@example(*RELEASED_WHILE_KEPT)
@given(plays, claims)
def test_the_same_signal_again_at_the_same_moment_changes_no_target_but_where_it_released_a_cell(given_, claim):
    driver = played(given_)
    size = claim["size"] if claim["action"] == "buy" else -claim["size"]
    fields = {name: what for name, what in claim.items() if what is not None and name != "size"}
    before = last(driver, claim["portfolio_id"]) if driver.allocations(claim["portfolio_id"]) else None
    for number in range(4):
        again = signal(driver.now_ns, **fields, expected_return=size, signal_id=f"again-{number}")
        driver.publish("signals", again)
    driver.run()
    assert last(driver, claim["portfolio_id"])["trigger"]["id"] == "again-3"
    rows = sorted(driver.allocations(claim["portfolio_id"]), key=lambda fields: fields["sequence"])[-4:]
    for earlier, one, other in zip([before, *rows], rows, rows[1:], strict=False):
        assert other["timestamp_ns"] == one["timestamp_ns"]
        assert not _changed(one, other) or _released(earlier, one), "a target changed although nothing was released"


def _changed(one, other):
    nothing = {"quantity": 0.0, "notional_usd": 0.0}
    for symbol in one["targets"].keys() | other["targets"].keys():
        was, now = one["targets"].get(symbol, nothing), other["targets"].get(symbol, nothing)
        if now["quantity"] != was["quantity"]:
            return True
        assert now["notional_usd"] == pytest.approx(was["notional_usd"], abs=0.02), symbol
    return False


def _released(earlier, one):
    """Return the cells that an allocation has set to nothing."""
    if earlier is None:
        return set()
    held, holds = (
        {(cell["strategy_id"], cell["symbol"]) for cell in each["cells"] if cell["cents"]} for each in (earlier, one)
    )
    return held - holds
