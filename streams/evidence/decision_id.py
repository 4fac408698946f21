"""Decision ids: the id contains the journal position at which the decision was made."""

import re
from typing import NamedTuple

from schemas.errors import NotFound

FORM = re.compile(r"([A-Za-z2-7]{8})-([0-9]{1,4})-([0-9]{1,18})-(.{1,64})", re.ASCII)


class DecisionName(NamedTuple):
    """The parts of `{journal_id}-{partition}-{offset}-{portfolio_id}`.

    >>> parse("DRIVER22-0-17-main")
    DecisionName(journal_id='DRIVER22', partition=0, offset=17, portfolio_id='main')
    """

    journal_id: str
    partition: int
    offset: int
    portfolio_id: str

    def __str__(self) -> str:
        return f"{self.journal_id}-{self.partition}-{self.offset}-{self.portfolio_id}"


def parse(decision_id: str) -> DecisionName:
    """Return the parts of a decision id.

    Raises:
        NotFound: the text is not a decision id.
    """
    found = FORM.fullmatch(decision_id)
    name = found and DecisionName(found[1], int(found[2]), int(found[3]), found[4])
    if not name or str(name) != decision_id:
        msg = f"decision id must be JOURNAL-PARTITION-OFFSET-PORTFOLIO, was {decision_id!r}"
        raise NotFound(msg)
    return name
