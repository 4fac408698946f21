"""The portfolios that one process audits: all, one, or a share of them."""

from typing import Final, NamedTuple
from zlib import crc32

from streams.journal.topics import TABLES
from streams.processing.ports import RecordKey

OF_A_PORTFOLIO: Final = frozenset(table.name for table in TABLES if table.key.startswith("portfolio"))
"""Tables whose keys start with the portfolio; all other tables are shared."""
ENTRIES_OF_ONE: Final = frozenset({"signal", "outcome", "positions", "advice", "no_advice"})
"""Kinds of entries that concern a single portfolio, which is their record key."""


class Part(NamedTuple):
    """Part `number` of `of`, by hash of the portfolio id; or only `portfolio`.

    >>> Part().mine(b"main"), Part(portfolio="other").mine(b"main")
    (True, False)
    >>> sum(Part(number, 3).mine(b"main") for number in range(3))
    1
    """

    number: int = 0
    of: int = 1
    portfolio: str | None = None

    @property
    def whole(self) -> bool:
        """Whether it includes every portfolio."""
        return self.of == 1 and self.portfolio is None

    def mine(self, key: bytes | None) -> bool:
        """Return whether a portfolio is in this part; a key of None is in the first part."""
        if self.portfolio is not None:
            return key == self.portfolio.encode()
        return self.of == 1 or crc32(key or b"") % self.of == self.number

    def keeps(self, record: RecordKey) -> bool:
        """Return whether this part needs a checkpoint record: one of its portfolios, or a shared one."""
        table, key = record
        return table not in OF_A_PORTFOLIO or self.mine(key.split(b"|", 1)[0])

    def counts(self, record: RecordKey) -> bool:
        """Return whether this part adds a record to the digest; shared records count in the first part only."""
        return self.mine(record[1].split(b"|", 1)[0]) if record[0] in OF_A_PORTFOLIO else self.number == 0


ALL: Final = Part()
