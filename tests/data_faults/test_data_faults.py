"""Every data fault is held to the rules, and the table of docs/reliability.md says what it did."""

from itertools import chain

import pytest
from data_faults.campaign import clean, played, result, warm, whole
from data_faults.faults import Cell, cells
from data_faults.rules import KNOWN, broken, known
from data_faults.table import columns, documented, place_of

CELLS = cells()
MORE_OF_THE_SAME = {"×100", "×1000", "÷100", "÷1000"}
EVERYDAY_LASTING = {"×10", "emptied"}
"""Kinds that `make test` leaves to `make test-all`, and those that it plays lasting."""


def marked(cell: Cell, *marks) -> pytest.param:
    """Return a cell as a parameter: all its tests run in one process, most lasting ones in `make test-all` alone."""
    everyday = cell.kind in EVERYDAY_LASTING if cell.lasting else cell.kind not in MORE_OF_THE_SAME
    long = [] if everyday else [pytest.mark.long]
    return pytest.param(cell, marks=[pytest.mark.xdist_group(cell.name), *long, *marks], id=cell.name)


@pytest.mark.parametrize("cell", [marked(cell) for cell in CELLS])
def test_a_fault_breaks_no_rule_that_it_is_not_known_to_break(cell):
    rules = {each.rule for each in known(cell)}
    assert {rule: text for rule, text in broken(cell, result(cell)).items() if rule not in rules} == {}


@pytest.mark.parametrize("cell", [marked(cell) for cell in CELLS])
def test_the_page_says_what_a_fault_did(cell):
    texts = documented()[place_of(cell)]
    assert columns(result(cell)) == (texts[3:] if cell.lasting else texts[:3])


@pytest.mark.parametrize(
    ("cell", "rule"),
    [
        pytest.param(
            *marked(cell).values,
            each.rule,
            marks=[*marked(cell).marks, pytest.mark.xfail(strict=True, reason=each.reason)],
            id=f"{cell.name}-{each.rule}",
        )
        for cell in CELLS
        for each in known(cell)
    ],
)
def test_a_rule_that_the_product_is_known_to_break(cell, rule):
    assert rule not in broken(cell, result(cell))


def test_the_page_has_every_cell_once_and_no_other():
    assert documented().keys() == {place_of(cell) for cell in CELLS}
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    assert [each for each in KNOWN if not any(each in known(cell) for cell in CELLS)] == []


def test_the_world_is_one_that_a_fault_could_hurt():
    """All strategies size all coins, no cap binds, the policy nudges, nothing is refused."""
    world = warm().fork(whole)
    assert len(list(played(world, 6))) == 6
    fields = chain.from_iterable(each["cells"] for each in world.allocations()[-1:])
    assert sorted(each["cents"] != 0 for each in fields) == [True] * 15
    assert world.allocations()[-1]["bound"] == []
    assert clean(6).told == {"alert control_applied applied": 2}
    assert world.state().gates.get(("main",)).status == "open"
    assert world.context.metrics.counts["rl_answers_total"][("counted",)] == 15
