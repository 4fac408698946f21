"""A worker's settings file: emptied, it lifts no limit and moves no port; a change knows what it is based on."""

import asyncio

import orjson
import pytest
from worlds import Driver

from config.load import load_bytes
from config.settings import Settings, decision_tree
from config.watch import FileWatch, change_payload
from engines.parameters import settings_hash
from streams.monitoring.metrics import Metrics
from streams.stages.control import settings_order
from streams.worker.hot_reload import VANISHED, Reload, Taker

LIMITS = """\
risk_management: {max_position_pct: 0.02}
sentiment: {weight: 0.05}
monitoring: {web_port: 7001, metrics_port: 7002}
"""
PORTS = frozenset({"monitoring.web_port", "monitoring.metrics_port"})


def of(text):
    return load_bytes(text.encode(), "").settings


class World:
    """A settings file, what a worker makes of it, and the journal that answers: time is looks."""

    def __init__(self, path, in_force=LIMITS, says=LIMITS):
        self.path, self.driver = path, Driver(of(in_force).decision(), partitions=2)
        path.write_text(says)
        self.driver.run()
        self.watch, self.metrics, self.alerts, self.ports = FileWatch(path), Metrics(), [], []
        self.reload = Reload(
            self.watch.loaded.settings,
            self.watch,
            takers=(Taker(PORTS, self.move),),
            send=self.send,
            metrics=self.metrics,
            clock=lambda: self.driver.now_ns,
            in_force=self.in_force,
        )

    async def move(self, settings):
        self.ports.append((settings.monitoring.web_port, settings.monitoring.metrics_port))

    async def send(self, sends):
        for each in sends:
            body = orjson.loads(each.value)
            if each.topic == "alerts":
                self.alerts.append(body)
            else:
                self.driver.publish(each.topic, body, key=each.key)

    def in_force(self):
        return self.driver.processors["journal", 0][0].state.settings_hash

    def looks(self, text=None, times=3):
        """Write the file, look a few times, and let the journal answer."""
        if text is not None:
            self.path.write_text(text)
        for _ in range(times):
            found = self.reload._look(self.watch)
            if found is not None:
                asyncio.run(self.reload.changed(found))
            self.driver.run()

    def apply(self, text):
        """Put settings in force as `himari config apply` does."""
        base = self.driver.processors["journal", 0][0].state.params
        payload = {**change_payload(of(text), of(text)), "base_hash": settings_hash(base.model_dump())}
        self.driver.publish("control", settings_order(payload, "x", "ops", self.driver.now_ns), key=b"settings")
        self.driver.run()

    def answers(self):
        return [orjson.loads(record.value)["result"] for record in self.driver.read("alerts")]


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "l3.yaml")
    made.looks()
    return made


def hash_of(text):
    return settings_hash(decision_tree(of(text)))


EMPTIED = {"emptied": "", "only its ports left": "monitoring: {web_port: 7001, metrics_port: 7002}\n"}


@pytest.mark.parametrize("name", EMPTIED)
def test_a_file_that_loses_its_limits_changes_nothing_and_an_alert_names_them(world, name):
    world.looks(EMPTIED[name])
    (alert,) = world.alerts
    assert (alert["kind"], alert["subject"]) == ("config_rejected", "config")
    for text in ("risk_management.max_position_pct", "sentiment.weight", "config apply", "l3.yaml --allow-removals"):
        assert text in alert["result"]
    assert world.in_force() == hash_of(LIMITS)
    assert (world.answers(), world.ports, world.reload.running) == ([], [], of(LIMITS))
    assert world.metrics.counts["config_reloads_total"]["rejected",] == 1
    world.looks(LIMITS.replace("0.02", "0.03"))
    assert world.in_force() == hash_of(LIMITS.replace("0.02", "0.03")), "put back, it is followed again"


@pytest.mark.parametrize("first", ["the file", "config apply"])
def test_a_removal_that_was_applied_on_purpose_is_taken_and_the_ports_stay(world, first):
    if first == "the file":
        world.looks("")
        assert len(world.alerts) == 1
        world.apply("")
        world.looks()
    else:
        world.apply("")
        world.looks("")
        assert world.alerts == [], "it was known to be meant"
    assert world.in_force() == hash_of("")
    assert world.watch.loaded.settings == Settings()
    assert (world.ports, world.reload.running.monitoring) == ([], of(LIMITS).monitoring)
    assert {key: waiting.do for key, waiting in world.reload.waiting.items()} == dict.fromkeys(PORTS, VANISHED)
    world.looks("sentiment: {weight: 0.04}\n")
    assert world.in_force() == hash_of("sentiment: {weight: 0.04}\n")
    assert (world.ports, set(world.reload.waiting)) == ([], PORTS), "nor do they move with the next change"
    world.looks("sentiment: {weight: 0.04}\nmonitoring: {web_port: 7003}\n")
    assert world.ports == [(7003, 7002)]
    assert set(world.reload.waiting) == {"monitoring.metrics_port"}


def test_a_file_that_never_was_in_force_is_not_taken_for_meant_when_it_is_emptied(tmp_path):
    world = World(tmp_path / "l3.yaml", in_force="")
    world.looks("")
    assert len(world.alerts) == 1
    world.looks(LIMITS)
    assert (world.in_force(), world.answers()) == (hash_of(""), []), "emptied and put back is no change"
    world.looks("")
    world.apply("sentiment: {weight: 0.04}\n")
    world.looks()
    assert world.watch.loaded.settings == of(LIMITS)
    world.apply("")
    world.looks()
    assert world.watch.loaded.settings == of(LIMITS), "what was in force when it was refused has no meaning"


def test_what_is_in_force_is_what_was_refused_after_another_change_of_it(tmp_path):
    world = World(tmp_path / "l3.yaml", in_force="sentiment: {weight: 0.04}\n")
    world.looks("")
    assert world.watch.loaded.settings == of(LIMITS)
    world.apply("")
    world.looks()
    assert world.watch.loaded.settings == Settings()


def test_a_file_that_changes_after_something_else_was_applied_is_a_conflict(world):
    other = "risk_management: {max_position_pct: 0.01}\nsentiment: {weight: 0.05}\n"
    world.apply(other)
    world.looks(LIMITS.replace("0.02", "0.15"))
    told = f"conflict: based on {hash_of(LIMITS)}, in force is {hash_of(other)}"
    assert world.answers() == ["applied"] * 2 + [told] * 2
    assert world.in_force() == hash_of(other)
    world.looks(LIMITS.replace("0.02", "0.03"))
    assert world.in_force() == hash_of(other), "nor does the next one override it"
    world.apply(LIMITS.replace("0.02", "0.03"))
    world.looks(LIMITS.replace("0.02", "0.04"))
    assert world.in_force() == hash_of(LIMITS.replace("0.02", "0.04")), "applied once, the file is followed again"


def test_a_file_that_says_what_was_applied_already_changes_nothing_and_is_followed(world):
    world.apply(LIMITS.replace("0.02", "0.03"))
    world.looks(LIMITS.replace("0.02", "0.03"))
    assert world.answers() == ["applied"] * 2 + ["no_op"] * 2
    world.looks(LIMITS.replace("0.02", "0.04"))
    assert world.in_force() == hash_of(LIMITS.replace("0.02", "0.04"))
