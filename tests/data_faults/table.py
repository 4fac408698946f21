"""`python -m data_faults.table` plays the whole campaign and writes its table into docs/reliability.md.

With names of inputs, only the rows of these.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from data_faults.campaign import AFTER, Result, result
from data_faults.faults import Cell, cells
from data_faults.world import STEP_S

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN = "| input | what | fault |"
HEAD = f"{BEGIN} once: moved | reported | heals | lasting: moved | reported | heals |\n{'|---' * 9}|"
WHOLE = "message"
"""What is hurt where it is not one number."""


class Place(NamedTuple):
    """Where a cell stands in the table: the same for once and lasting."""

    input: str
    what: str
    kind: str


def place_of(cell: Cell) -> Place:
    return Place(cell.input, cell.field.rsplit(".", 1)[-1] or WHOLE, cell.kind)


def columns(found: Result) -> tuple[str, str, str]:
    """Return what moved, what reported it, and how soon it heals, as the table says it."""
    moved = f"{found.moved_usd:,.0f} USD, {found.moved_share:,.0%}" if found.bands >= 0.01 else "0"
    told = [f"`{each.removeprefix('alert ')}`" for each in found.told]
    return moved, ", ".join(told or [f"(counter `{each}`)" for each in found.counted]) or "–", heals(found)


def heals(found: Result) -> str:
    if found.heals is None:
        return f"> {AFTER * STEP_S} s"
    return f"{found.heals * STEP_S} s" if found.bands > 1.0 else "–"


def table(inputs: Sequence[str]) -> str:
    """Play the cells of some inputs, of all if none is named; kinds of one number that do the same share a row."""
    before = documented() if inputs else {}
    found: dict[Place, tuple[str, ...]] = {}
    for cell in cells():
        place = place_of(cell)
        if inputs and cell.input not in inputs:
            found[place] = before[place]
        else:
            found[place] = (*found.get(place, ()), *columns(result(cell)))
    return "\n".join([HEAD, *rows(found.items())])


def rows(found: Iterable[tuple[Place, tuple[str, ...]]]) -> Iterator[str]:
    for (name, what, texts), alike in groupby(found, key=lambda row: (row[0].input, row[0].what, row[1])):
        yield f"| {' | '.join([name, f'`{what}`', ', '.join(place.kind for place, _ in alike), *texts])} |"


def documented() -> dict[Place, tuple[str, ...]]:
    """Return the columns of every cell in the page."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").partition(HEAD)[2].strip().splitlines():
        name, what, kinds, *texts = line.strip("| ").split(" | ")
        for kind in kinds.split(", "):
            found[Place(name, what.strip("`"), kind)] = tuple(texts)
    return found


def written(page: str, inputs: Sequence[str]) -> str:
    """Return the page with a new table; its prose comes before it."""
    return f"{page.partition(BEGIN)[0]}{table(inputs)}\n"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), sys.argv[1:]), encoding="utf-8")
