"""What commands print: every line passes one function that leaves nothing for a terminal to obey.

A record may hold anything: escape sequences that rewrite the screen, marks that reverse what is read, newlines that
forge a line of ours, characters that nobody sees. All of them are shown as escapes. Text that is only printed (by,
reason, dead letters, headers) stays as it is in topics and files.
"""

import logging
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, Final

import click
import orjson

INVISIBLE: Final = frozenset(
    [
        *map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180F, 0x2800, 0x3164, 0xFFA0)),
        *map(chr, range(0x180B, 0x180E)),
        *map(chr, range(0xFE00, 0xFE10)),
        *map(chr, range(0xE0100, 0xE01F0)),
    ]
)
"""Fillers, joiners and selectors that Python counts as printable; `str.isprintable` knows the other ones."""
MARKS_MAX: Final = 3
"""Combining marks on one character; more of them would be drawn over the lines above and below."""
JSON_SPACE: Final = frozenset("\t\n\r")


def harmless(text: str) -> str:
    r"""Return a line in which all that a terminal obeys or hides is escaped, line breaks and tabs included.

    >>> print(harmless("ops\n\x1b[2Jall\u202eACTIVE"))
    ops\n\x1b[2Jall\u202eACTIVE
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if shown else ascii(each)[1:-1] for each, shown in _judged(text))


def harmless_json(text: str) -> str:
    r"""Return JSON that means the same, in one line, with `\uXXXX` for what `harmless` escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each if shown else " " if each in JSON_SPACE else _json_escape(each) for each, shown in _judged(text)
    )


def _judged(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each character, and whether it is shown as it is."""
    marks = 0
    for each in text:
        marks = marks + 1 if unicodedata.category(each).startswith("M") else 0
        yield each, each.isprintable() and each not in INVISIBLE and marks <= MARKS_MAX


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def say(line: str, *, err: bool = False) -> None:
    """Print a line."""
    click.echo(harmless(line), err=err)


def say_all(lines: Iterable[str], *, err: bool = False) -> None:
    """Print lines."""
    for line in lines:
        say(line, err=err)


def say_json(fields: Any) -> None:
    """Print a value as one line of JSON."""
    click.echo(harmless_json(orjson.dumps(fields, option=orjson.OPT_NON_STR_KEYS).decode()))


def say_raw_json(text: str) -> None:
    """Print JSON as somebody else wrote it, or what was meant to be JSON."""
    click.echo(harmless_json(text))


class LogFormatter(logging.Formatter):
    """Log lines in which a record's text cannot forge another line. Tracebacks keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 logging's name
        """Return the line without exception and stack."""
        return harmless(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 logging's name
        """Return the traceback."""
        return "\n".join(map(harmless, super().formatException(ei).split("\n")))
