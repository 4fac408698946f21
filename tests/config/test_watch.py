"""The watch on the settings file: what has come to rest is taken once, and a bad file changes nothing."""

import os
import re

import pytest
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from config.load import load, load_bytes
from config.removals import of_file, refusal
from config.settings import Settings, decision_tree
from config.watch import FileChange, FileWatch, Rejected, change_payload
from engines.parameters import RlParams, settings_hash
from schemas.control import SettingsChange
from schemas.errors import ConfigurationException

FIRST = "position_sizing:\n  bayesian_kelly:\n    kelly_fraction: 0.2\nkafka:\n  chunk_records: 100\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(FIRST)
    return path


def looks(watch, times):
    return [watch.poll() for _ in range(times)]


def test_a_file_that_stays_as_it_is_changes_nothing(file):
    assert looks(FileWatch(file), 3) == [None, None, None]


def test_a_changed_decision_is_one_record_based_on_what_the_file_said_before(file):
    watch = FileWatch(file)
    before = load(file).settings
    file.write_text(FIRST.replace("0.2", "0.3"))
    first, second, third = looks(watch, 3)
    assert (first, third) == (None, None)
    assert isinstance(second, FileChange)
    assert second.decision_keys == (("position_sizing.bayesian_kelly.kelly_fraction", 0.2, 0.3),)
    assert second.worker_keys == ()
    assert second.loaded.settings.position_sizing.bayesian_kelly.kelly_fraction == 0.3
    assert second.decision == change_payload(before, second.loaded.settings)
    assert second.decision["base_hash"] == settings_hash(decision_tree(before))
    assert second.decision["hash"] == settings_hash(second.decision["tree"])
    assert SettingsChange.model_validate(second.decision)


def test_the_next_change_is_based_on_this_one(file):
    watch = FileWatch(file)
    file.write_text(FIRST.replace("0.2", "0.3"))
    one = looks(watch, 2)[-1]
    file.write_text(FIRST.replace("0.2", "0.4"))
    two = looks(watch, 2)[-1]
    assert two.decision["base_hash"] == one.decision["hash"]


def test_a_changed_worker_setting_is_told_apart_and_makes_no_record(file):
    watch = FileWatch(file)
    file.write_text(FIRST.replace("100", "200"))
    change = looks(watch, 2)[-1]
    assert change.decision is None
    assert change.worker_keys == (("kafka.chunk_records", 100, 200),)


def test_the_two_parts_of_rl_are_told_apart(file):
    """What decisions ask goes through the journal; how a worker asks is its own, and no record is made of it."""
    watch = FileWatch(file)
    file.write_text(FIRST + "rl: {protocol: mock, seed: 7}\n")
    local = looks(watch, 2)[-1]
    assert local.decision is None
    assert [key for key, _, _ in local.worker_keys] == ["rl.protocol", "rl.seed"]
    file.write_text(FIRST + "rl: {protocol: mock, seed: 8, enabled: true}\n")
    both = looks(watch, 2)[-1]
    assert both.decision_keys == (("rl.enabled", False, True),)
    assert both.worker_keys == (("rl.seed", 7, 8),)
    assert set(both.decision["tree"]["rl"]) == set(RlParams.model_fields)


def test_comments_and_order_change_nothing(file):
    watch = FileWatch(file)
    file.write_text("# new\n" + FIRST)
    assert looks(watch, 3) == [None, None, None]


def test_a_bad_file_is_reported_once_and_the_old_settings_stay(file):
    watch = FileWatch(file)
    file.write_text(FIRST.replace("0.2", "2"))
    answers = looks(watch, 5)
    assert [type(answer) for answer in answers] == [type(None), Rejected, *[type(None)] * 3]
    assert "kelly_fraction" in str(answers[1].error)
    assert watch.loaded.settings.position_sizing.bayesian_kelly.kelly_fraction == 0.2
    file.write_text(FIRST)
    assert looks(watch, 3) == [None, None, None]
    file.write_text(FIRST.replace("0.2", "3"))
    assert isinstance(looks(watch, 2)[-1], Rejected)


def test_a_half_written_file_is_never_taken_even_where_it_is_good_yaml(file):
    watch = FileWatch(file)
    whole = FIRST.replace("0.2", "0.3")
    for length in range(0, len(whole), 7):
        file.write_text(whole[:length])
        assert watch.poll() is None
    file.write_text(whole)
    change = looks(watch, 2)[-1]
    assert change.decision_keys == (("position_sizing.bayesian_kelly.kelly_fraction", 0.2, 0.3),)
    assert change.worker_keys == ()


def test_a_file_that_is_replaced_is_seen_and_one_that_is_gone_is_reported_once(file):
    watch = FileWatch(file)
    file.unlink()
    gone = looks(watch, 4)
    assert [type(answer) for answer in gone] == [type(None), Rejected, type(None), type(None)]
    other = file.with_name("other.yaml")
    other.write_text(FIRST.replace("0.2", "0.3"))
    other.replace(file)
    assert isinstance(looks(watch, 2)[-1], FileChange)


def test_a_change_of_equal_size_and_time_is_seen_while_the_file_is_not_at_rest(file):
    watch = FileWatch(file)
    times = file.stat()
    file.write_text(FIRST.replace("0.2", "0.3"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert isinstance(looks(watch, 2)[-1], FileChange)


def test_environment_and_command_line_still_win(file):
    watch = FileWatch(file, {"HIMARI__KAFKA__CHUNK_RECORDS": "7"}, {"topics.partitions": 2})
    file.write_text(FIRST.replace("100", "200"))
    assert looks(watch, 3) == [None, None, None]
    assert watch.loaded.settings.kafka.chunk_records == 7
    assert watch.loaded.settings.topics.partitions == 2


def test_a_file_that_is_bad_at_the_start_cannot_be_watched(file):
    file.write_text("kafka: 5")
    with pytest.raises(ConfigurationException):
        FileWatch(file)


# -- what vanishes ---------------------------------------------------------------------------------------------------
LIMITS = """\
position_sizing:
  bayesian_kelly: {kelly_fraction: 0.2}
  lots: {BTC-USD: 0.001, ETH-USD: 0.01}
risk_management:
  max_position_pct: 0.02
  max_drawdown_pct: 0.1
  allow_short: true
monitoring: {web_port: 0, metrics_port: 0}
"""
EVERYTHING = [
    "position_sizing.bayesian_kelly.kelly_fraction",
    "position_sizing.lots.BTC-USD",
    "position_sizing.lots.ETH-USD",
    "risk_management.max_drawdown_pct",
    "risk_management.max_position_pct",
    "monitoring.metrics_port",
    "monitoring.web_port",
]
"""What of it is not the default; `allow_short: true` is."""
VANISHING = {
    "all": ("", EVERYTHING, "the file has no settings"),
    "all but a comment": ("# l3", EVERYTHING, "the file has no settings"),
    "all but names of sections": ("risk_management: {}\nmonitoring: {}\n", EVERYTHING, "the file has no settings"),
    "a decision section": (
        re.sub(r"risk_management:\n(  .*\n)+", "", LIMITS),
        ["risk_management.max_drawdown_pct", "risk_management.max_position_pct"],
        "the file lacks the whole section risk_management",
    ),
    "a worker's section": (
        LIMITS.replace("monitoring: {web_port: 0, metrics_port: 0}", ""),
        ["monitoring.metrics_port", "monitoring.web_port"],
        "the file lacks the whole section monitoring",
    ),
    "two settings of a section": (
        LIMITS.replace("  max_position_pct: 0.02\n  max_drawdown_pct: 0.1\n", ""),
        ["risk_management.max_drawdown_pct", "risk_management.max_position_pct"],
        "2 settings would return to their defaults at once",
    ),
    "two settings of two sections": (
        LIMITS.replace("  max_position_pct: 0.02\n", "").replace(", ETH-USD: 0.01", ""),
        ["position_sizing.lots.ETH-USD", "risk_management.max_position_pct"],
        "2 settings would return to their defaults at once",
    ),
    "two, and another one changes": (
        LIMITS.replace("  max_position_pct: 0.02\n  max_drawdown_pct: 0.1\n", "").replace("0.2}", "0.3}"),
        ["risk_management.max_drawdown_pct", "risk_management.max_position_pct"],
        "2 settings would return to their defaults at once",
    ),
}


@pytest.fixture
def limits(file):
    file.write_text(LIMITS)
    return file


@pytest.mark.parametrize("name", VANISHING)
def test_settings_that_vanish_together_are_refused_by_name_and_nothing_of_the_file_is_taken(limits, name):
    text, keys, why = VANISHING[name]
    watch = FileWatch(limits)
    before = watch.loaded
    limits.write_text(text)
    nothing, refused, *later = looks(watch, 4)
    assert (nothing, later) == (None, [None, None])
    assert isinstance(refused, Rejected)
    assert refused.error.key.split(", ") == keys
    assert why in refused.error.rule
    command = f"himari config apply {limits} --allow-removals"
    decides = any(not key.startswith("monitoring.") for key in keys)
    assert refused.error.rule.endswith(f"if intended, {f'run: {command}' if decides else 'restart the worker'}")
    assert watch.loaded == before
    limits.write_text(LIMITS)
    assert looks(watch, 3) == [None, None, None]
    assert watch.accept() is None, "put back, nothing is refused any more"


MAY_BE = {
    "one setting": LIMITS.replace("  max_position_pct: 0.02\n", ""),
    "one of a mapping": LIMITS.replace(", ETH-USD: 0.01", ""),
    "a line that said the default": LIMITS.replace("  allow_short: true\n", ""),
    "one of a worker's section": LIMITS.replace(", metrics_port: 0", ""),
    "none: the defaults are written out": LIMITS.replace("0.02", "0.15").replace(
        "drawdown_pct: 0.1", "drawdown_pct: 0.3"
    ),
}


@pytest.mark.parametrize("name", MAY_BE)
def test_what_somebody_takes_out_by_hand_is_taken(limits, name):
    watch = FileWatch(limits)
    limits.write_text(MAY_BE[name])
    assert not any(isinstance(found, Rejected) for found in looks(watch, 3))
    assert watch.loaded.settings == load(limits).settings


def test_the_environment_does_not_keep_a_section_that_the_file_has_lost(limits):
    watch = FileWatch(limits, {"HIMARI__MONITORING__LOG_LEVEL": "ERROR"})
    limits.write_text(LIMITS.replace("monitoring: {web_port: 0, metrics_port: 0}", ""))
    assert isinstance(looks(watch, 2)[-1], Rejected)


def test_what_the_environment_says_does_not_vanish_with_the_file(file):
    file.write_text("risk_management: {max_position_pct: 0.02}\n")
    watch = FileWatch(file, {"HIMARI__RISK_MANAGEMENT__MAX_POSITION_PCT": "0.03"})
    file.write_text("")
    assert looks(watch, 3) == [None, None, None]
    assert watch.loaded.settings.risk_management.max_position_pct == 0.03


def test_a_removal_that_is_meant_is_a_change_in_which_the_workers_settings_are_held(limits):
    watch = FileWatch(limits)
    before = watch.loaded.settings
    limits.write_text("")
    looks(watch, 2)
    change = watch.accept()
    assert change.decision == change_payload(before, Settings())
    assert change.held == {"monitoring.metrics_port", "monitoring.web_port"}
    assert watch.loaded.settings == Settings()
    assert (watch.accept(), looks(watch, 3)) == (None, [None, None, None])


def test_many_keys_are_named_up_to_a_number():
    many = load_bytes(b"position_sizing: {lots: {" + b", ".join(b"S%d: 0.5" % n for n in range(50)) + b"}}", "")
    removal = of_file(many.settings, load_bytes(b"", ""))
    assert len(removal.decision) == 50
    assert refusal("l3.yaml", removal).key.endswith(" and 30 more")


# -- whatever is written ---------------------------------------------------------------------------------------------
NAMES = {
    FIRST: {"position_sizing", "kafka"},
    FIRST.replace("0.2", "0.3"): {"position_sizing", "kafka"},
    FIRST.replace("100", "5"): {"position_sizing", "kafka"},
    "kafka: {chunk_records: 7}": {"kafka"},
    "": set(),
    "# empty": set(),
}
"""Good text → its sections."""
BAD = ["kafka: 5", "{", "kafka: {chunk_records: 0}"]


class Reference(RuleBasedStateMachine):
    """Whatever is written when, the settings are those of the last good file seen twice that lost no section."""

    @initialize()
    def begin(self):
        self.path = self.folder / "settings.yaml"
        self.path.write_text(FIRST)
        self.watch = FileWatch(self.path)
        self.judged = self.seen = self.text = self.taken = FIRST
        self.refused = None
        self.settings = load_bytes(FIRST.encode(), "").settings

    @rule(text=st.sampled_from([*NAMES, *BAD]))
    def write(self, text):
        self.text = text
        self.path.write_text(text)

    @rule()
    def look(self):
        answer = self.watch.poll()
        settled = self.text == self.seen and self.text != self.judged
        self.seen = self.text
        if not settled:
            assert answer is None
            return
        self.judged, self.refused = self.text, None
        if self.text in BAD:
            assert isinstance(answer, Rejected)
            return
        if NAMES[self.taken] - NAMES[self.text]:
            assert isinstance(answer, Rejected)
            self.refused = self.text
            return
        self.takes(self.text, answer)

    @rule()
    def mean_it(self):
        answer, meant = self.watch.accept(), self.refused
        self.refused = None
        if meant is None:
            assert answer is None
        else:
            self.takes(meant, answer)

    def takes(self, text, answer):
        wanted = load_bytes(text.encode(), "").settings
        assert (answer is None) == (wanted == self.settings)
        if answer is not None and answer.decision is not None:
            assert Settings.model_validate(answer.decision["tree"]).decision() == wanted.decision()
            assert answer.decision["base_hash"] == settings_hash(decision_tree(self.settings))
        self.settings, self.taken = wanted, text

    @invariant()
    def the_settings_are_those_of_the_reference(self):
        assert self.watch.loaded.settings == self.settings


def test_the_watch_behaves_as_its_reference(tmp_path):
    Reference.folder = tmp_path
    Reference.TestCase.settings = profile(max_examples=40, stateful_step_count=20, deadline=None)
    Reference.TestCase("runTest").runTest()
