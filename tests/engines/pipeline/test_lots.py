"""Whole lots: what is published in USD is what its quantity is worth, and what cannot afford a lot frees its budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import PRICES, TRUSTING, Driver, last, priced, signal, tick, with_

from engines.parameters import DecisionParams
from engines.pipeline import lots
from engines.pipeline.caps import Limits

LIMITS = Limits(0.15, 0.40, 0.80, 1_000, 5_000_000)
V = 100_000.0
NAMES = "WXYZ"


def test_the_symbol_that_is_furthest_below_its_lot_goes_first_and_leaves_its_budget():
    cells = [("a", name) for name in NAMES]
    capped, reasons = lots.affordable(
        cells, [1_500_000] * 4, [1.0] * 4, V, LIMITS, {"W": 4_350_000.0, "X": 1_200_000.0}
    )
    assert capped.cents == [0, 1_333_333, 1_333_333, 1_333_333], "a third of 40,000 each: X can afford its lot now"
    assert reasons == {0: "below a lot"}


def test_nothing_is_dropped_where_every_lot_can_be_afforded():
    capped, reasons = lots.affordable([("a", "W")], [-700_000], [1.0], V, LIMITS, {"W": 700_000.0})
    assert (capped.cents, reasons) == ([-700_000], {})


def test_the_cents_that_make_no_lot_are_taken_from_the_side_of_the_net():
    cells = [("a", "W"), ("b", "W"), ("c", "W")]
    found = lots.whole(cells, [5_000, -2_000, 4_000], {"W": 6.0}, {"W": 10.0}, 1_000)
    assert found == ([4_000, -2_000, 4_000], {"W": 6.0}, {})
    gone = lots.whole(cells, [300, -100, 400], {"W": 0.5}, {"W": 10.0}, 1_000)
    assert gone == ([0, -100, 100], {"W": 0.0}, {0: "below a lot", 2: "below a lot"})


books = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(NAMES)), unique=True, min_size=1, max_size=8).flatmap(
    lambda cells: st.tuples(
        st.just(sorted(cells)), st.lists(st.integers(-(10**6), 10**6), min_size=len(cells), max_size=len(cells))
    )
)


@given(books, st.sampled_from((0.01, 0.5, 1.0, 3.0)), st.floats(0.5, 500.0))
def test_no_cell_grows_or_turns_and_each_symbol_is_worth_its_quantity(book, lot, price):
    cells, cents = book
    nets = {name: sum(c for (_, n), c in zip(cells, cents, strict=True) if n == name) for _, name in cells}
    quantities = {name: lots.in_lots(net / (100 * price), lot) for name, net in nets.items()}
    found = lots.whole(cells, cents, quantities, dict.fromkeys(nets, price), 0)
    for was, now in zip(cents, found.cents, strict=True):
        assert abs(now) <= abs(was)
        assert was * now >= 0
    for name in nets:
        net = sum(c for (_, n), c in zip(cells, found.cents, strict=True) if n == name)
        assert net == round(100 * found.quantities[name] * price)


def test_through_the_whole_pipeline_a_coin_below_its_lot_says_so_and_frees_its_budget():
    tree = TRUSTING.model_dump()
    tree["position_sizing"]["lots"] = {"BTC-USD": 1.0, "ETH-USD": 0.5}
    driver = priced(Driver(DecisionParams.model_validate(tree), partitions=1))
    for symbol in PRICES:
        driver.publish("signals", signal(driver.now_ns, symbol=symbol, signal_id=symbol, valid_for_s=86_400))
    driver.run()
    found = last(driver)
    assert found["targets"]["BTC-USD"] == {"notional_usd": 0.0, "quantity": 0.0, "weight": 0.0}
    assert found["targets"]["ETH-USD"]["quantity"] == pytest.approx(5.5)
    assert found["targets"]["ETH-USD"]["notional_usd"] == 5.5 * PRICES["ETH-USD"]
    assert found["reasons"] == [
        {"symbol": "BTC-USD", "code": "below_lot", "text": "one lot of BTC-USD is 1.0 coins: more than its size"}
    ]


def test_a_hold_has_a_size_too():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns, action="hold", expected_return=0.0))
    driver.run()
    assert last(driver)["position_size_usd"] == 0.0


# -- contracts -------------------------------------------------------------------------------------------------------
def contracts(**given):
    """Return a driver whose symbols are traded in contracts; ETH-USD in coins, as always."""
    return priced(Driver(with_(TRUSTING, ("position_sizing.contracts", given["contracts"])), partitions=1))


@pytest.mark.parametrize(
    ("contract", "quantity", "notional"),
    [
        ({"size": 0.01}, 31.0, 13_485.0),  # 13,500 / 435 = 31.03
        ({"size": 100.0, "inverse": True}, 135.0, 13_500.0),
        ({"size": 1_000.0, "inverse": True}, 13.0, 13_000.0),
    ],
)
def test_quantities_are_whole_contracts_and_worth_them(contract, quantity, notional):
    """V = 100,000, cap 15 %, risk factor .9: 13,500 USD at 43,500 USD a coin."""
    driver = contracts(contracts={"BTC-USD": contract})
    driver.publish("signals", signal(driver.now_ns, expected_return=0.02))
    driver.run()
    found = last(driver)["targets"]["BTC-USD"]
    assert found == {"notional_usd": notional, "quantity": quantity, "weight": notional / 100_000}


def test_a_report_counts_contracts():
    driver = contracts(contracts={"BTC-USD": {"size": 100.0, "inverse": True}})
    driver.publish("signals", signal(driver.now_ns, expected_return=0.02))
    driver.advance(60.0)
    driver.publish("positions", {"portfolio_id": "main", "timestamp_ns": driver.now_ns, "quantities": {"BTC-USD": 135}})
    driver.advance(1.0)
    driver.publish("prices", tick(driver.now_ns))
    driver.advance(2.0)
    driver.publish("signals", signal(driver.now_ns, expected_return=0.02, signal_id="again"))
    driver.run()
    found = last(driver)
    assert (found["basis"], found["targets"]["BTC-USD"]["quantity"]) == ("positions", 135.0)
