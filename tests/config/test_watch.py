"""The watch on the settings file: what has come to rest is taken once, and a bad file changes nothing."""

import os

import pytest
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from config.load import load, load_bytes
from config.settings import Settings, decision_tree, settings_hash
from config.watch import Change, Rejected, Watch, change_payload
from engines.parameters import RlParams
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
    assert looks(Watch(file), 3) == [None, None, None]


def test_a_changed_decision_is_one_record_based_on_what_the_file_said_before(file):
    watch = Watch(file)
    before = load(file).settings
    file.write_text(FIRST.replace("0.2", "0.3"))
    first, second, third = looks(watch, 3)
    assert (first, third) == (None, None)
    assert isinstance(second, Change)
    assert second.decision_keys == (("position_sizing.bayesian_kelly.kelly_fraction", 0.2, 0.3),)
    assert second.worker_keys == ()
    assert second.loaded.settings.position_sizing.bayesian_kelly.kelly_fraction == 0.3
    assert second.decision == change_payload(before, second.loaded.settings)
    assert second.decision["base_hash"] == settings_hash(decision_tree(before))
    assert second.decision["hash"] == settings_hash(second.decision["tree"])
    assert SettingsChange.model_validate(second.decision)


def test_the_next_change_is_based_on_this_one(file):
    watch = Watch(file)
    file.write_text(FIRST.replace("0.2", "0.3"))
    one = looks(watch, 2)[-1]
    file.write_text(FIRST.replace("0.2", "0.4"))
    two = looks(watch, 2)[-1]
    assert two.decision["base_hash"] == one.decision["hash"]


def test_a_changed_worker_setting_is_told_apart_and_makes_no_record(file):
    watch = Watch(file)
    file.write_text(FIRST.replace("100", "200"))
    change = looks(watch, 2)[-1]
    assert change.decision is None
    assert change.worker_keys == (("kafka.chunk_records", 100, 200),)


def test_the_two_parts_of_rl_are_told_apart(file):
    """What decisions ask goes through the journal; how a worker asks is its own, and no record is made of it."""
    watch = Watch(file)
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
    watch = Watch(file)
    file.write_text("# new\n" + FIRST)
    assert looks(watch, 3) == [None, None, None]


def test_a_bad_file_is_reported_once_and_the_old_settings_stay(file):
    watch = Watch(file)
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
    watch = Watch(file)
    whole = FIRST.replace("0.2", "0.3")
    for length in range(0, len(whole), 7):
        file.write_text(whole[:length])
        assert watch.poll() is None
    file.write_text(whole)
    change = looks(watch, 2)[-1]
    assert change.decision_keys == (("position_sizing.bayesian_kelly.kelly_fraction", 0.2, 0.3),)
    assert change.worker_keys == ()


def test_a_file_that_is_replaced_is_seen_and_one_that_is_gone_is_reported_once(file):
    watch = Watch(file)
    file.unlink()
    gone = looks(watch, 4)
    assert [type(answer) for answer in gone] == [type(None), Rejected, type(None), type(None)]
    other = file.with_name("other.yaml")
    other.write_text(FIRST.replace("0.2", "0.3"))
    other.replace(file)
    assert isinstance(looks(watch, 2)[-1], Change)


def test_a_change_of_equal_size_and_time_is_seen_while_the_file_is_not_at_rest(file):
    watch = Watch(file)
    times = file.stat()
    file.write_text(FIRST.replace("0.2", "0.3"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert isinstance(looks(watch, 2)[-1], Change)


def test_environment_and_command_line_still_win(file):
    watch = Watch(file, {"HIMARI__KAFKA__CHUNK_RECORDS": "7"}, {"topics.partitions": 2})
    file.write_text(FIRST.replace("100", "200"))
    assert looks(watch, 3) == [None, None, None]
    assert watch.loaded.settings.kafka.chunk_records == 7
    assert watch.loaded.settings.topics.partitions == 2


def test_a_file_that_is_bad_at_the_start_cannot_be_watched(file):
    file.write_text("kafka: 5")
    with pytest.raises(ConfigurationException):
        Watch(file)


GOOD = [FIRST, FIRST.replace("0.2", "0.3"), FIRST.replace("100", "5"), "", "# empty"]
BAD = ["kafka: 5", "{", "kafka: {chunk_records: 0}"]


class Reference(RuleBasedStateMachine):
    """Whatever is written when, the settings in force are those of the last good file seen twice in a row."""

    @initialize()
    def begin(self):
        self.path = self.folder / "settings.yaml"
        self.path.write_text(FIRST)
        self.watch = Watch(self.path)
        self.judged = self.seen = self.text = FIRST
        self.settings = load_bytes(FIRST.encode(), "").settings

    @rule(text=st.sampled_from(GOOD + BAD))
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
        self.judged = self.text
        if self.text in BAD:
            assert isinstance(answer, Rejected)
            return
        wanted = load_bytes(self.text.encode(), "").settings
        assert (answer is None) == (wanted == self.settings)
        if answer is not None and answer.decision is not None:
            assert Settings.model_validate(answer.decision["tree"]).decision() == wanted.decision()
            assert answer.decision["base_hash"] == settings_hash(decision_tree(self.settings))
        self.settings = wanted

    @invariant()
    def the_settings_are_those_of_the_reference(self):
        assert self.watch.loaded.settings == self.settings


def test_the_watch_behaves_as_its_reference(tmp_path):
    Reference.folder = tmp_path
    Reference.TestCase.settings = profile(max_examples=40, stateful_step_count=20, deadline=None)
    Reference.TestCase("runTest").runTest()
