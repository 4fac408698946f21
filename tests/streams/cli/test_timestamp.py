"""Points in time as people type them."""

from datetime import UTC, datetime

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.cli.timestamp import INSTANT
from streams.reports.weight_history import instant

SECOND_NS = 1_000_000_000
NOON_NS = 1_769_860_800 * SECOND_NS


def ns(text):
    return INSTANT.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", NOON_NS),
        ("2026-01-31T12:00:00", NOON_NS),
        ("2026-01-31 14:00:00+02:00", NOON_NS),
        ("2026-01-31", NOON_NS - 12 * 3600 * SECOND_NS),
        ("20260131", NOON_NS - 12 * 3600 * SECOND_NS),
        ("1769860800000000000", NOON_NS),
        (NOON_NS, NOON_NS),
    ],
)
def test_a_time_is_iso_8601_in_utc_or_nanoseconds(text, expected):
    assert ns(text) == expected


@pytest.mark.parametrize("text", ["", "noon", "2026-13-01", "1769860800.5", "-1769860800000000000", "17e17"])
def test_what_is_no_time_is_refused_with_examples(text):
    with pytest.raises(click.BadParameter, match="must be a time: 2026-01-31T12:00:00Z"):
        ns(text)


@given(st.integers(0, 4_000_000_000_000_000).map(lambda microseconds: microseconds * 1_000))
def test_what_an_export_writes_can_be_typed_again(at_ns):
    assert ns(instant(at_ns)) == at_ns


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)))  # noqa: DTZ001 without an offset it is UTC
def test_a_time_without_an_offset_is_utc(moment):
    assert ns(moment.isoformat()) == ns(moment.replace(tzinfo=UTC).isoformat())
