"""`himari config`, as it is typed."""

import json

import pytest
from click.testing import CliRunner

from config.diff import leaves
from config.load import DEFAULT_FILE
from config.settings import Settings, decision_tree
from engines.parameters import settings_hash
from streams.cli.config import config

HASH = settings_hash(decision_tree(Settings()))


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv("HIMARI__KAFKA__BOOTSTRAP_SERVERS", raising=False)


def run(*arguments, obj=None, env=None):
    return CliRunner().invoke(config, list(map(str, arguments)), obj=obj, env=env)


@pytest.fixture
def bad(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("kafka:\n  chunk_record: 7\n")
    return file


def test_a_good_file_is_valid():
    told = run("validate", DEFAULT_FILE)
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout == f"{DEFAULT_FILE}: valid, decision settings {HASH[:12]}\n"
    assert json.loads(run("validate", "--json").stdout) == {"valid": True, "file": None, "settings_hash": HASH}


def test_a_bad_file_is_one_line_on_stderr_and_exit_5(bad):
    told = run("validate", bad)
    assert told.exit_code == 5
    assert told.stdout == ""
    assert told.stderr == f"himari: {bad}, line 2: kafka.chunk_record: is not a setting; did you mean chunk_records?\n"
    as_json = json.loads(run("validate", bad, "--json").stdout)
    assert (as_json["valid"], as_json["key"], as_json["line"]) == (False, "kafka.chunk_record", 2)


def test_the_file_comes_from_the_options_before_as_well(bad):
    assert run("validate", obj={"config": str(bad), "bootstrap": None}).exit_code == 5
    assert run("show", obj={"config": str(bad), "bootstrap": None}).exit_code == 5
    assert run("show", "--config", bad).exit_code == 5


def test_show_has_every_key_and_its_origin():
    told = run(
        "show",
        "--origin",
        obj={"config": str(DEFAULT_FILE), "bootstrap": "broker:1"},
        env={"HIMARI__KAFKA__CHUNK_RECORDS": "7"},
    )
    lines = dict(line.split(": ", 1) for line in told.stdout.splitlines())
    value, origin = lines["kafka.bootstrap_servers"].split("  # ")
    assert (value.strip(), origin) == ('"broker:1"', "command line")
    assert len(lines) == len(leaves(Settings().model_dump()))
    assert lines["kafka.chunk_records"].endswith("# env HIMARI__KAFKA__CHUNK_RECORDS")
    assert lines["market.bar_s"].endswith("# file")


def test_show_as_json_is_one_object():
    told = json.loads(run("show", "--json", "--origin").stdout)
    assert told["settings"] == Settings().model_dump()
    assert told["settings_hash"] == HASH
    assert set(told["origin"].values()) == {"default"}


def test_diff_names_each_key_with_both_values(tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("market: {bar_s: 60}\n")
    told = run("diff", DEFAULT_FILE, other)
    assert (told.exit_code, told.stdout) == (0, "market.bar_s: 3600 → 60\n")
    same = run("diff", DEFAULT_FILE, DEFAULT_FILE)
    assert (same.exit_code, same.stdout) == (0, "")
    as_json = json.loads(run("diff", DEFAULT_FILE, other, "--json").stdout)
    assert as_json == {"differences": [{"key": "market.bar_s", "a": 3600, "b": 60}]}


def test_diff_refuses_a_bad_file_and_a_missing_argument(bad):
    assert run("diff", DEFAULT_FILE, bad).exit_code == 5
    assert run("diff", DEFAULT_FILE).exit_code == 2
