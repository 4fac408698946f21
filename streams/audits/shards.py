"""Which portfolios one process looks after: all, one, or a share of them, so that several work side by side."""

from typing import Final, NamedTuple
from zlib import crc32

from streams.journal.topics import TABLES
from streams.processing.ports import RecordKey

OF_A_PORTFOLIO: Final = frozenset(table.name for table in TABLES if table.key.startswith("portfolio"))
"""Tables whose records belong to a portfolio, which is the first part of their key; the others are shared."""
ENTRIES_OF_ONE: Final = frozenset({"signal", "outcome", "positions", "advice", "no_advice"})
"""Kinds of entries that concern one portfolio alone, which is the key of their record."""


class Part(NamedTuple):
    """Part `number` of `of`, by the portfolio's name; `portfolio`: this one alone.

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
        """Whether every portfolio is in it."""
        return self.of == 1 and self.portfolio is None

    def mine(self, key: bytes | None) -> bool:
        """Return whether a portfolio is in this part; what names none is in the first."""
        if self.portfolio is not None:
            return key == self.portfolio.encode()
        return self.of == 1 or crc32(key or b"") % self.of == self.number

    def keeps(self, record: RecordKey) -> bool:
        """Return whether a record of a checkpoint matters to this part: one of its portfolios, or shared."""
        table, key = record
        return table not in OF_A_PORTFOLIO or self.mine(key.split(b"|", 1)[0])

    def counts(self, record: RecordKey) -> bool:
        """Return whether this part adds a record to the digest: what is shared the first part alone adds."""
        return self.mine(record[1].split(b"|", 1)[0]) if record[0] in OF_A_PORTFOLIO else self.number == 0


ALL: Final = Part()
