"""Timestamps on the command line."""

from datetime import UTC, datetime, timedelta

import click

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Instant(click.ParamType):
    """A time as ISO 8601 (UTC unless an offset is given) or whole ns since 1970, converted to ns since 1970."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return ns since 1970; fail with a usage error if the text is not a time."""
        if isinstance(value, int):
            return value
        text = str(value)
        if text.isascii() and text.isdigit() and len(text) > len("20260101"):
            return int(text)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text} must be a time: 2026-01-31T12:00:00Z, 2026-01-31, or ns since 1970", param, ctx)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - EPOCH) // MICROSECOND * 1_000


INSTANT = Instant()
