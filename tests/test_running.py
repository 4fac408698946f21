"""How tests run: brokers are shared and end with the run, what is missing is said, what is left out is written down."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import shared_brokers

from schemas.errors import BrokerUnreachable
from streams.kafka.apache_kafka import find_java
from streams.kafka.connection import answers

ROOT = Path(__file__).parents[1]
EMBEDDED, KAFKA = "embedded_broker", "kafka_broker"


def answered(connection):
    host, _, port = connection.bootstrap.partition(":")
    return asyncio.run(answers(host, int(port)))


# -- shared brokers --------------------------------------------------------------------------------------------------
def test_a_broker_is_started_once_it_is_wanted_and_once_and_ends_with_the_run():
    share = shared_brokers.Share()
    try:
        share.start_wanted()
        assert share.running == {}, "nobody wants one"
        shared_brokers.wanted(share.folder, ["names", "tmp_path", EMBEDDED])
        share.start_wanted()
        first = share.running[EMBEDDED]
        shared_brokers.wanted(share.folder, [EMBEDDED])
        share.start_wanted()
        assert share.running == {EMBEDDED: first}
        one, other = (shared_brokers.connection(share.folder, EMBEDDED) for _ in range(2))
        assert one.bootstrap == other.bootstrap == first.bootstrap
        assert answered(one)
    finally:
        share.stop()
    assert not answered(one)
    assert not share.folder.exists()


def test_a_broker_that_cannot_be_had_here_is_told_to_all_who_want_it(monkeypatch):
    def none(_folder):
        raise BrokerUnreachable("no Java")

    monkeypatch.setitem(shared_brokers.MAKERS, KAFKA, none)
    share = shared_brokers.Share()
    try:
        shared_brokers.wanted(share.folder, [KAFKA])
        share.start_wanted()
        with pytest.raises(BrokerUnreachable, match="no Java"):
            shared_brokers.connection(share.folder, KAFKA)
    finally:
        share.stop()


def test_a_broker_that_never_answers_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_brokers, "PATIENCE_S", 0.2)
    (tmp_path / f"{EMBEDDED}.json").write_text('{"port": 9}')
    with pytest.raises(BrokerUnreachable, match=r"embedded_broker of this run did not answer within 0\.2 s"):
        shared_brokers.connection(tmp_path, EMBEDDED)


# -- a machine without Java ------------------------------------------------------------------------------------------
KAFKA_TEST = "tests/broker/test_topics.py::test_apply_creates_every_declared_topic_and_a_second_time_nothing[kafka]"


@pytest.fixture
def without_java(tmp_path, monkeypatch):
    """Let this process, and those it starts, find no Java."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(BrokerUnreachable, match="none was found"):
        find_java()


@pytest.mark.parametrize(
    ("ci", "code", "spread"), [("", 0, ("-n", "0")), ("true", 1, ("-n", "1", "--dist", "loadgroup"))]
)
@pytest.mark.usefixtures("without_java")
def test_without_java_one_line_says_what_was_skipped_and_in_ci_it_fails(ci, code, spread):
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *spread, KAFKA_TEST)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=ROOT, env={**environment, "CI": ci}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == code, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("NOT RUN HERE")]
    told = "NOT RUN HERE: 1 tests on Apache Kafka: Apache Kafka needs Java 17 or newer: none was found (install a JRE)"
    assert lines == ([] if ci else [told])
    assert "Apache Kafka needs Java 17 or newer" in done.stdout


# -- what is left to make test-all -----------------------------------------------------------------------------------
def test_ci_runs_all_tests():
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert re.findall(r"^make (test\S*)$", script, re.MULTILINE) == ["test-all"]


def test_each_file_with_long_tests_is_in_the_table_that_says_why():
    page = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    of_both = re.compile(r"mark\.long\b|\((?:cluster|broker)\b|, broker\b")
    long = [path.stem for path in files if of_both.search(path.read_text(encoding="utf-8")) and "broker" in path.parts]
    long += [path.stem for path in files if "mark.long" in path.read_text(encoding="utf-8")]
    assert len(long) >= 10
    words = page.replace("dead letters", "test_dead_letters").replace("RL report", "test_rl_report")
    missing = [name for name in long if name not in words and name.removeprefix("test_") not in words]
    assert missing == []
