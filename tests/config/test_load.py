"""Settings from four places, and what is said where one of them is wrong."""

import contextlib
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config.diff import diff, leaves
from config.load import DEFAULT_FILE, load, load_bytes
from config.settings import Settings, decision_tree
from config.strict_yaml import read
from engines.parameters import DecisionParams, settings_hash, tree_hash
from schemas.errors import ConfigurationException

DEFAULTS = Settings()


def written(tmp_path, text):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return file


def test_the_file_is_the_defaults_with_every_key_and_a_comment_on_each():
    found = load(DEFAULT_FILE)
    assert found.settings == DEFAULTS
    assert set(found.origin) == set(leaves(DEFAULTS.model_dump()))
    assert set(found.origin.values()) == {"file"}
    lines = DEFAULT_FILE.read_text().splitlines()
    bare = [
        line
        for above, line in zip(["", *lines], lines, strict=False)
        if line.strip()
        and not line.lstrip().startswith("#")
        and "  # " not in line
        and not above.lstrip().startswith("#")
    ]
    assert bare == []


def test_each_section_of_the_file_reads_as_plain_yaml_reads_it():
    assert yaml.safe_load(DEFAULT_FILE.read_text()) == DEFAULTS.model_dump()


def test_later_places_win_over_earlier_ones_and_the_origin_says_so(tmp_path):
    file = written(tmp_path, "kafka:\n  chunk_records: 1\n  fetch_max_wait_ms: 2\n  checkpoint_entries: 3\n")
    env = {"HIMARI__KAFKA__FETCH_MAX_WAIT_MS": "20", "HIMARI__KAFKA__CHECKPOINT_ENTRIES": "30", "HOME": "/"}
    settings, origin, in_file = load(file, env, {"kafka.checkpoint_entries": 300})
    assert in_file == {"kafka.chunk_records", "kafka.fetch_max_wait_ms", "kafka.checkpoint_entries"}
    kafka = settings.kafka
    assert (kafka.chunk_records, kafka.fetch_max_wait_ms, kafka.checkpoint_entries) == (1, 20, 300)
    assert kafka.checkpoint_interval_s == 10
    told = {
        key.removeprefix("kafka."): place for key, place in origin.items() if key.count(".") == 1 and "kafka." in key
    }
    assert told == {
        "bootstrap_servers": "default",
        "fetch_max_wait_ms": "env HIMARI__KAFKA__FETCH_MAX_WAIT_MS",
        "session_timeout_s": "default",
        "chunk_records": "file",
        "checkpoint_interval_s": "default",
        "checkpoint_entries": "command line",
        "max_ahead_s": "default",
        "data_dir": "default",
    }


def test_nothing_given_means_the_defaults():
    assert load() == load_bytes(b"# nothing\n", "empty.yaml")
    assert set(load().origin.values()) == {"default"}


def test_symbols_and_aliases_keep_their_spelling_and_their_points():
    text = b"position_sizing: {lots: {BTC.P: 1e-8}, regime_adjustment: {regime_aliases: {RISK OFF: crisis}}}"
    env = {"HIMARI__POSITION_SIZING__LOTS__ETHUSDT": "0.001"}
    settings, origin, in_file = load_bytes(text, "a.yaml", env, {"position_sizing.lots.SOL.P": 0.1})
    assert settings.position_sizing.lots == {"BTC.P": 1e-8, "ETHUSDT": 0.001, "SOL.P": 0.1}
    assert settings.position_sizing.regime_adjustment.regime_aliases == {"RISK OFF": "crisis"}
    assert origin["position_sizing.lots.BTC.P"] == "file"
    assert in_file == {
        "position_sizing.lots.BTC.P",
        "position_sizing.regime_adjustment.regime_aliases.RISK OFF",
    }
    assert origin["position_sizing.lots.ETHUSDT"] == "env HIMARI__POSITION_SIZING__LOTS__ETHUSDT"
    assert origin["position_sizing.lots.SOL.P"] == "command line"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-8", 1e-8),
        (".5", 0.5),
        ("-3", -3),
        ("007", 7),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("~", None),
        ("", None),
        (".inf", ".inf"),
        ("0x10", "0x10"),
        ("2020-01-01", "2020-01-01"),
        ("'7'", "7"),
        ("[1, a]", [1, "a"]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    assert read(f"a: {text}".encode(), "a.yaml").tree == {"a": value}


BAD_FILES = {
    "cut short": ("kafka: {", "", "must be YAML", 1),
    "a tab": ("kafka:\n\tchunk_records: 1", "", "must be YAML", 2),
    "a list": ("- 1", "", "must be a mapping of sections", None),
    "two documents": ("kafka: {}\n---\nkafka: {}", "", "must be YAML", 2),
    "an alias": ("kafka: &a\n  chunk_records: 1\ntopics: *a", "", "aliases are refused", 3),
    "a merge": ("kafka: &a {chunk_records: 1}\ntopics:\n  <<: *a", "", "aliases are refused", 3),
    "a tag": ("kafka: !!python/object/apply:os.system [ls]", "", "tags are refused", 1),
    "a plain tag": ("topics:\n  prefix: !!str 5", "", "tags are refused", 2),
    "a key twice": (
        "kafka:\n  chunk_records: 1\n  chunk_records: 1\n",
        "kafka.chunk_records",
        "must be given once",
        3,
    ),
    "a section twice": ("kafka: {}\ntopics: {}\nkafka: {}", "kafka", "must be given once", 3),
    "a key that is a list": ("? [a]\n: 1", "", "keys must be strings", 1),
    "too large": ("#" * 262_145, "", "must have at most 262144 bytes", None),
    "not UTF-8": ("kafka: \udcff", "", "must be UTF-8", None),
    "too deep": ("[" * 50_000, "", "must be YAML", None),
    "an unknown section": ("kafak: {a: 1}", "kafak", "is not a setting; did you mean kafka?", 1),
    "an unknown key": (
        "kafka:\n  chunk_record: 1",
        "kafka.chunk_record",
        "is not a setting; did you mean chunk_records?",
        2,
    ),
    "another name": ("kafka:\n  zzz: 1", "kafka.zzz", "is not a setting; known are bootstrap_servers", 2),
    "an unknown key, deep": (
        "position_sizing:\n  bayesian_kelly:\n    Kelly_Fraction: .2",
        "position_sizing.bayesian_kelly.Kelly_Fraction",
        "is not a setting; did you mean kelly_fraction?",
        3,
    ),
    "a value for a section": ("kafka: 5", "kafka", "must be a section of settings, was 5", 1),
    "null for a section": ("kafka:", "kafka", "must be an object, was null", 1),
    "out of range": (
        "position_sizing:\n  bayesian_kelly:\n    kelly_fraction: 0.6",
        "position_sizing.bayesian_kelly.kelly_fraction",
        "must be at most 0.5, was 0.6",
        3,
    ),
    "text for a number": ("market: {bar_s: hourly}", "market.bar_s", "must be an integer, was 'hourly'", 1),
    "a number in quotes": ("market: {bar_s: '3600'}", "market.bar_s", "must be an integer, was '3600'", 1),
    "a fraction for a whole": ("market: {bar_s: 3600.5}", "market.bar_s", "must be an integer, was 3600.5", 1),
    "infinite": ("portfolio: {initial_value_usd: 1e999}", "portfolio.initial_value_usd", "must be finite", 1),
    "nan": ("portfolio: {initial_value_usd: .nan}", "portfolio.initial_value_usd", "must be a number", 1),
    "5,000 digits": ("market: {bar_s: " + "9" * 5000 + "}", "market.bar_s", "must be a number", 1),
    "a word for a switch": ("hot_reload: {enabled: yes}", "hot_reload.enabled", "must be true or false", 1),
    "an unknown word": ("monitoring:\n  log_level: LOUD", "monitoring.log_level", "must be 'DEBUG'", 2),
    "two that do not fit": ("market:\n  bar_s: 61\n  step_s: 2", "market", "must be a multiple of step_s", 3),
    "half of a pair": (
        "position_sizing:\n  drawdown_bound: {alpha: 0.7}",
        "position_sizing.drawdown_bound.beta",
        "must be given",
        2,
    ),
    "a broker without a port": ("kafka: {bootstrap_servers: localhost}", "kafka.bootstrap_servers", "must match", 1),
}


@pytest.mark.parametrize(("text", "key", "rule", "line"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_with_file_key_rule_and_line(tmp_path, text, key, rule, line):
    file = tmp_path / "bad.yaml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationException) as refused:
        load(file)
    error = refused.value
    assert (error.file, error.key, error.line) == (str(file), key, line)
    assert rule in error.rule
    assert str(error).startswith(str(file) if line is None else f"{file}, line {line}: ")
    assert "\n" not in str(error)
    assert len(error.rule) < 400


@pytest.mark.parametrize(
    ("env", "overrides", "place", "key"),
    [
        (
            {"HIMARI__KAFKA__CHUNK_RECORDS": "many"},
            {},
            "environment HIMARI__KAFKA__CHUNK_RECORDS",
            "kafka.chunk_records",
        ),
        ({"HIMARI__KAFKA__CHUNKS": "1"}, {}, "environment HIMARI__KAFKA__CHUNKS", "kafka.chunks"),
        ({"HIMARI__KAFKA": "5"}, {}, "environment HIMARI__KAFKA", "kafka"),
        ({"HIMARI__KAFKA__DATA_DIR": "["}, {}, "environment HIMARI__KAFKA__DATA_DIR", "kafka.data_dir"),
        ({}, {"kafka.chunk_records": 0}, "command line", "kafka.chunk_records"),
        ({}, {"kafka.chunk": 1}, "command line", "kafka.chunk"),
    ],
)
def test_the_place_that_gave_the_bad_value_is_named(env, overrides, place, key):
    with pytest.raises(ConfigurationException) as refused:
        load_bytes(b"kafka: {chunk_records: 7}", "good.yaml", env, overrides)
    assert (refused.value.file, refused.value.key) == (place, key)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ConfigurationException, match=r"nowhere\.yaml: must be a readable file: No such file"):
        load(Path("nowhere.yaml"))


@given(st.binary(max_size=80) | st.text(alphabet="kafka: {}[]&*!|>-?'\"#\n\t1e.,", max_size=80).map(str.encode))
def test_random_files_raise_nothing_but_configuration_exception(raw):
    with contextlib.suppress(ConfigurationException):
        assert isinstance(load_bytes(raw, "random.yaml").settings, Settings)


# -- hash and diff -------------------------------------------------------------------------------------------------
def test_the_hash_names_the_decision_sections_alone_and_is_the_engines_own():
    tree = decision_tree(DEFAULTS)
    assert set(tree) == set(DecisionParams.model_fields)
    assert settings_hash(tree) == tree_hash(DEFAULTS.decision())
    assert settings_hash(json.loads(json.dumps(tree))) == settings_hash(tree)
    local = load(overrides={"kafka.chunk_records": 7, "topics.partitions": 2}).settings
    assert settings_hash(decision_tree(local)) == settings_hash(tree)


def test_the_hash_is_the_same_for_settings_that_are_written_in_another_way():
    a = load_bytes(b"risk_management: {max_leverage: 2}\nposition_sizing: {lots: {B: 1, A: 2}}", "a").settings
    b = load_bytes(b"position_sizing: {lots: {A: 2.0, B: 1.0}}\nrisk_management: {max_leverage: 2.00}", "b").settings
    assert settings_hash(decision_tree(a)) == settings_hash(decision_tree(b))


@pytest.mark.parametrize("key", list(leaves(decision_tree(DEFAULTS))))
def test_every_decision_setting_changes_the_hash(key):
    tree = decision_tree(DEFAULTS)
    *sections, name = key.split(".")
    inner = tree
    for section in sections:
        inner = inner[section]
    inner[name] = "something else"
    assert settings_hash(tree) != settings_hash(decision_tree(DEFAULTS))
    assert [(changed, b) for changed, _, b in diff(decision_tree(DEFAULTS), tree)] == [(key, "something else")]


def test_a_difference_is_a_dotted_key_and_both_values():
    assert diff({"a": {"b": 1, "c": 2}, "d": {}}, {"a": {"b": 1, "c": 3}, "d": {"e": 4}}) == [
        ("a.c", 2, 3),
        ("d", {}, None),
        ("d.e", None, 4),
    ]


trees = st.recursive(
    st.integers(0, 2) | st.none(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))


@given(trees, trees)
def test_two_trees_are_equal_where_nothing_differs(a, b):
    assert (diff(a, b) == []) == (a == b)
    assert diff(b, a) == [(key, after, before) for key, before, after in diff(a, b)]
