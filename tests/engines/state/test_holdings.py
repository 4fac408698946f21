"""What is held: quantities at present prices, split over cells to the cent."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.parameters import ContractParams, DecisionParams
from engines.state.holdings import UNASSIGNED, hold
from engines.state.partition import State
from engines.state.records import Bars, Book, CellTarget, Market

NOW_NS = 1_700_000_000_000_000_000
PRICES = {"BTC": 40_000.0, "ETH": 2_000.0, "SOL": 100.0}


def market(price):
    bars = Bars(0, price, price, price, 0.0, 1, price, NOW_NS, 0, None, None, None, ())
    return Market(bars, (None,) * 7, None, None, 0)


def world(targets, positions=None, prices=PRICES, params=None, **book):
    """A portfolio "main" that was told to hold targets {(strategy, symbol): (cents, quantity of the symbol)}.

    Every symbol is managed and the report of positions covers the newest change, unless `book` says otherwise.
    """
    state = State(0)
    if params is not None:
        state.use(params)
    for symbol, price in prices.items():
        state.put_market(symbol, market(price))
    for (strategy, symbol), (cents, quantity) in targets.items():
        state.put_target(("main", strategy, symbol), CellTarget(cents, quantity, 1.0, 1.0))
    known = None if positions is None else tuple(sorted(positions.items()))
    given = {"managed": (*PRICES, "XRP"), "changed_sequence": 1, "as_of_sequence": 1, **book}
    state.put_book("main", Book(100_000.0, 100_000.0, 1, "", known, NOW_NS, (), **given))
    return state


def test_a_target_is_held_at_the_present_price():
    found = hold(world({("a", "BTC"): (1_000_000, 0.25)}, prices={"BTC": 44_000.0}), "main")
    assert found.cells == [("a", "BTC")]
    assert found.cents == [1_100_000]
    assert (found.quantities, found.basis) == ({"BTC": 0.25}, "targets")


@pytest.mark.parametrize(
    ("contract", "price", "cents"),
    [
        ({"size": 0.01}, 40_000.0, 1_200_000),
        ({"size": 0.01}, 44_000.0, 1_320_000),
        ({"size": 100.0, "inverse": True}, 40_000.0, 300_000),
        ({"size": 100.0, "inverse": True}, 44_000.0, 300_000),
    ],
)
def test_thirty_contracts_are_worth_their_coins_or_the_same_at_every_price(contract, price, cents):
    sizing = DecisionParams().position_sizing.model_copy(update={"contracts": {"BTC": ContractParams(**contract)}})
    params = DecisionParams().model_copy(update={"position_sizing": sizing})
    assert hold(world({("a", "BTC"): (1, 30.0)}, prices={"BTC": price}, params=params), "main").cents == [cents]


def test_a_short_is_held_as_a_negative_size_to_the_nearest_cent():
    assert hold(world({("a", "SOL"): (-1_000, -0.33333)}, prices={"SOL": 99.99}), "main").cents == [-3333]


def test_known_positions_go_before_targets_and_are_split_as_these_were():
    targets = {("a", "BTC"): (1_000_000, 0.375), ("b", "BTC"): (500_000, 0.375)}
    found = hold(world(targets, {"BTC": 0.3}), "main")
    assert found.basis == "positions"
    assert found.cents == [800_000, 400_000]


def test_the_cents_that_remain_go_to_the_first_by_name():
    targets = {(name, "SOL"): (100, 3.0) for name in "abc"}
    assert hold(world(targets, {"SOL": 1.0}, {"SOL": 100.0}), "main").cents == [3_334, 3_333, 3_333]


def test_a_position_that_no_target_explains_is_the_unassigned_strategys():
    found = hold(world({("a", "BTC"): (1_000_000, 0.25)}, {"BTC": 0.25, "ETH": -2.0}), "main")
    assert found.cells == [(UNASSIGNED, "ETH"), ("a", "BTC")]
    assert found.cents == [-400_000, 1_000_000]
    assert found.targets[0] is None


def test_what_the_positions_do_not_name_is_not_held():
    assert hold(world({("a", "BTC"): (1_000_000, 0.25)}, {}), "main").cents == [0]


def test_opposite_cells_that_net_to_nothing_are_held_as_they_were_published():
    found = hold(world({("a", "BTC"): (500_000, 0.0), ("b", "BTC"): (-500_000, 0.0)}), "main")
    assert found.cents == [500_000, -500_000]


def test_what_has_no_price_is_worth_what_it_was_published_at():
    found = hold(world({("a", "XRP"): (500_000, 10_000.0)}), "main")
    assert (found.intended, found.cents) == ([500_000], [500_000])
    half = hold(world({("a", "XRP"): (300_000, 10_000.0), ("b", "XRP"): (200_000, 10_000.0)}, {"XRP": 5_000.0}), "main")
    assert (half.intended, half.cents) == ([300_000, 200_000], [150_000, 100_000])


# -- whether a report counts -----------------------------------------------------------------------------------------
TARGETS = {("a", "BTC"): (1_000_000, 0.25)}
SETTLE_NS = 30 * 1_000_000_000


@pytest.mark.parametrize(
    ("book", "held"),
    [
        ({"as_of_sequence": 7, "changed_sequence": 7}, 0.1),
        ({"as_of_sequence": 6, "changed_sequence": 7}, 0.25),
        ({"as_of_sequence": 6, "changed_sequence": 7, "changed_ns": NOW_NS - SETTLE_NS}, 0.25),
        ({"as_of_sequence": None, "changed_ns": NOW_NS - SETTLE_NS}, 0.1),
        ({"as_of_sequence": None, "changed_ns": NOW_NS - SETTLE_NS + 1}, 0.25),
    ],
)
def test_a_report_counts_where_it_covers_the_newest_change_of_a_target(book, held):
    found = hold(world(TARGETS, {"BTC": 0.1}, **book), "main")
    assert found.quantities["BTC"] == held
    assert found.basis == ("targets" if held == 0.25 else "positions")
    assert found.intended_quantities == {"BTC": 0.25}
    assert found.intended == [1_000_000]


def test_without_a_sequence_a_report_that_equals_the_targets_to_the_lot_covers_them_at_once():
    fresh = {"as_of_sequence": None, "changed_ns": NOW_NS}
    assert hold(world(TARGETS, {"BTC": 0.25 + 9e-9}, **fresh), "main").basis == "positions"
    assert hold(world(TARGETS, {"BTC": 0.25 + 2e-8}, **fresh), "main").basis == "targets"
    assert hold(world(TARGETS, {"BTC": 0.25, "ETH": 1.0}, **fresh), "main").basis == "targets", "ETH was sold by target"
    strange = {**fresh, "managed": ("BTC",)}
    assert hold(world(TARGETS, {"BTC": 0.25, "ETH": 1.0}, **strange), "main").basis == "positions"


def test_a_report_is_settled_once_the_change_has_had_time_to_be_carried_out():
    for since_ns, settled in ((SETTLE_NS, True), (SETTLE_NS - 1, False)):
        assert hold(world(TARGETS, {"BTC": 0.1}, changed_ns=NOW_NS - since_ns), "main").settled is settled


def test_a_position_without_a_target_of_ours_is_not_managed_unless_asked_to_flatten():
    found = hold(world(TARGETS, {"BTC": 0.25, "ETH": 2.0}, managed=("BTC",)), "main")
    assert (found.cells, found.unmanaged) == ([("a", "BTC")], {"ETH": 2.0})
    params = DecisionParams.model_validate({"portfolio": {"unmanaged": "flatten"}})
    found = hold(world(TARGETS, {"BTC": 0.25, "ETH": 2.0}, managed=("BTC",), params=params), "main")
    assert (found.cells, found.unmanaged) == ([(UNASSIGNED, "ETH"), ("a", "BTC")], {})


sizes = st.dictionaries(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(tuple(PRICES))),
    st.integers(-2_000_000, 2_000_000).filter(bool),
    min_size=1,
    max_size=8,
)
quantities = st.fixed_dictionaries({}, optional={symbol: st.floats(-50, 50) for symbol in (*PRICES, "XRP")})


@given(sizes, quantities)
def test_the_cells_of_a_symbol_add_up_to_its_position_in_the_proportions_published(sizes, positions):
    found = hold(world({cell: (cents, 0.0) for cell, cents in sizes.items()}, positions), "main")
    for symbol, price in PRICES.items():
        held = {cell: cents for cell, cents in zip(found.cells, found.cents, strict=True) if cell[1] == symbol}
        published = {cell: cents for cell, cents in sizes.items() if cell[1] == symbol}
        total = sum(published.values())
        net = round(100.0 * positions.get(symbol, 0.0) * price)
        if published and not total:
            assert held == published
            continue
        assert sum(held.values()) == net
        for cell, cents in published.items():
            assert abs(held[cell] - Fraction(cents * net, total)) <= len(published)


@given(sizes, quantities)
def test_cells_are_sorted_and_each_is_there_once(sizes, positions):
    found = hold(world({cell: (cents, 0.0) for cell, cents in sizes.items()}, positions), "main")
    assert found.cells == sorted(dict.fromkeys(found.cells))
    assert len(found.cells) == len(found.cents) == len(found.targets)


def test_a_portfolio_that_was_never_heard_of_holds_nothing():
    assert hold(State(0), "nobody") == ([], [], {}, [], {}, [], "targets", False, {})


@pytest.mark.parametrize("basis", ["positions", "targets"])
def test_holding_reads_and_changes_nothing(basis):
    state = world({("a", "BTC"): (1_000_000, 0.25)}, {"ETH": 1.0} if basis == "positions" else None)
    before = {table: dict(records) for table, records in state.tables.items()}
    state.touched.clear()
    assert hold(state, "main") == hold(state, "main")
    assert state.tables == before
    assert not state.touched
