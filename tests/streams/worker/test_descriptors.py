"""How many files a worker may open: raised before anything opens, or refused in one line."""

import resource

import pytest

from config.settings import Settings
from schemas.errors import ConfigurationException
from streams.worker.descriptors import Limit, needed, raised

UNLIMITED = resource.RLIM_INFINITY


def settings(partitions=12, **rl):
    return Settings.model_validate({"topics": {"partitions": partitions}, "rl": rl})


def test_the_need_covers_what_was_measured_and_fits_common_limits():
    idle_at_12 = 960  # counted in /proc/PID/fd of a worker that owns 12 partitions on Apache Kafka
    assert idle_at_12 + 2 * 64 < needed(settings()) < 4_096
    assert needed(settings(24)) - needed(settings(12)) == 12 * 14 * 16, "13 tables of the journal, 1 of prices"
    asked = needed(settings(enabled=True, max_in_flight=1_000)) - needed(settings(max_in_flight=1_000))
    assert asked == 1_000, "a connection for each question that may be under way"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Limit(1_024, 4_096), Limit(4_096, 4_096)),
        (Limit(4_096, 4_096), Limit(4_096, 4_096)),
        (Limit(1_024, 3_000), Limit(3_000, 3_000)),
        (Limit(1_024, UNLIMITED), Limit(3_000, UNLIMITED)),
        (Limit(9_000, UNLIMITED), Limit(9_000, UNLIMITED)),
        (Limit(UNLIMITED, UNLIMITED), Limit(UNLIMITED, UNLIMITED)),
    ],
)
def test_the_soft_limit_becomes_the_hard_one(before, after):
    assert raised(before, 3_000) == after


def test_a_hard_limit_that_is_too_low_names_what_is_needed_and_where():
    rule = r"^environment: RLIMIT_NOFILE: must allow 3000 .* was 1024"
    with pytest.raises(ConfigurationException, match=rule) as told:
        raised(Limit(1_024, 1_024), 3_000)
    assert told.value.exit_code == 5
    assert "LimitNOFILE=3000" in str(told.value)
