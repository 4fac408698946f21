"""Places to die at: off in production, and each where it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import ConfigurationException
from streams.processing import crashpoints
from streams.processing.crashpoints import ENVIRONMENT, POINTS, passed, trap

ROOT = Path(__file__).parents[3]


def test_without_the_variable_every_place_is_passed():
    assert crashpoints.at is passed
    assert [passed(point) for point in POINTS] == [None] * len(POINTS)


def test_the_nth_passage_of_the_named_place_is_the_last():
    died = []
    at = trap("stored:3", lambda: died.append(len(passages)))
    passages = []
    for point in ("stored", "logged", "stored", "logged", "logged", "stored", "stored"):
        passages.append(point)
        at(point)
    assert died[0] == 6


@pytest.mark.parametrize(
    "text", ["stored", "stored:", "stored:0", "stored:-1", "stored:٣", "nowhere:1", ":1", "stored:1:1"]
)
def test_what_names_no_place_is_refused(text):
    with pytest.raises(ConfigurationException, match="HIMARI_CRASH_AT: must be name:nth"):
        trap(text, lambda: None)


def test_a_process_with_the_variable_is_killed_there_and_one_with_a_bad_one_says_so():
    code = (
        "from streams.processing import crashpoints\nfor _ in range(3): crashpoints.at('sent'); print('on', flush=True)"
    )
    run = lambda at: subprocess.run(  # noqa: E731
        [sys.executable, "-c", code], env={**os.environ, ENVIRONMENT: at}, cwd=ROOT, capture_output=True, check=False
    )
    done = run("sent:2")
    assert (done.returncode, done.stdout) == (-9, b"on\n")
    code = "from streams.cli import main; main(['worker', '--help'])"
    refused = run("sent")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (5, 1), refused.stderr


def test_every_place_is_passed_exactly_once_in_the_product():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "streams").rglob("*.py")]
    found = [name for text in sources for name in re.findall(r'crashpoints\.at\("(\w+)"\)', text)]
    assert sorted(found) == sorted(POINTS)
