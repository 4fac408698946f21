"""Positions in the journal on the command line: a time, an entry or a decision."""

import re
from typing import Final, NamedTuple

import click

from schemas.errors import NotFound
from streams.cli.timestamp import INSTANT
from streams.evidence.decision_id import parse

ENTRY: Final = re.compile(r"([0-9]{1,4}):([0-9]{1,18})", re.ASCII)


class JournalMark(NamedTuple):
    """A time in all partitions, or one entry of one partition."""

    at_ns: int = 0
    partition: int | None = None
    offset: int = 0


class JournalPlace(click.ParamType):
    """A time (see `Instant`), PARTITION:OFFSET, or a decision id.

    >>> PLACE.convert("3:17", None, None)
    JournalMark(at_ns=0, partition=3, offset=17)
    >>> PLACE.convert("DRIVER22-0-17-main", None, None)
    JournalMark(at_ns=0, partition=0, offset=17)
    """

    name = "place"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> JournalMark:
        """Return the position; fail with a usage error if the text is none."""
        if isinstance(value, JournalMark):
            return value
        text = str(value)
        entry = ENTRY.fullmatch(text)
        if entry is not None:
            return JournalMark(0, int(entry[1]), int(entry[2]))
        try:
            name = parse(text)
        except NotFound:
            return JournalMark(INSTANT.convert(text, param, ctx))
        return JournalMark(0, name.partition, name.offset)


PLACE: Final = JournalPlace()
