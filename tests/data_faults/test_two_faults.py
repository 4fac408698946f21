"""Two faults at a time, drawn: nothing crashes, no target turns, and a replay gives the same bytes."""

from functools import cache

from data_faults.campaign import FIRST, Step, gaps_of, known
from data_faults.faults import LASTS, Fault, cells
from data_faults.rules import known as known_of
from data_faults.world import WARM_STEPS, Message, Sending, World, played, warm, whole
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.journal.entries import TOPIC as JOURNAL
from streams.stages.sizing import SizingFold

STEPS = FIRST - WARM_STEPS + LASTS + 12
EXAMPLES = 15
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Two names are as short as they can be: to shrink them takes minutes."""


class Both:
    """Two faults; what the first leaves alone is the second's."""

    def __init__(self, one: Fault, other: Fault) -> None:
        self.one, self.other = one, other

    def __call__(self, message: Message, step: int) -> list[Sending]:
        said = self.one(message, step)
        return self.other(message, step) if said == whole(message, step) else said


def faulty(cell, after: int) -> Fault:
    return Fault(cell, FIRST + after, FIRST + after + LASTS, warm().said)


def seen(world: World) -> list[Step]:
    return [Step(targets, dict(world.account.prices), known(world)) for targets in played(world, STEPS)]


@cache
def sound() -> list[Step]:
    """Return the steps of the world without faults."""
    return seen(warm().fork(whole))


def published(world: World) -> list[bytes]:
    """Return the allocations since the fork."""
    first = len(warm().read("allocations"))
    return [record.value or b"" for record in world.cluster.log("allocations", 0).read(first)]


def replayed(world: World) -> list[bytes]:
    """Fold what the world has journaled since the fork again, from the state that was there."""
    before, fold = warm().processors[JOURNAL, 0][0], SizingFold(0)
    rows = {key: before.encode(key) for key in warm().stores[JOURNAL, 0].records}
    fold.restore(before.meta(), {key: row for key, row in rows.items() if row is not None})
    records = world.cluster.log(JOURNAL, 0).read(warm().cluster.log(JOURNAL, 0).end)
    sends = [send for record in records for send in fold.fold(record)]
    return [send.value or b"" for send in sends if send.topic == "allocations"]


HARMLESS = [each for each in cells() if not known_of(each)]
"""Faults that break no rule by themselves: of the others a rule says nothing, with or without company."""


@settings(max_examples=EXAMPLES, phases=PHASES)
@given(st.lists(st.sampled_from(HARMLESS), min_size=2, max_size=2, unique=True), st.sampled_from((0, 1, 6)))
def test_two_faults_crash_nothing_turn_nothing_and_replay_to_the_same_bytes(tmp_path_factory, two, after):
    world = warm().fork(Both(faulty(two[0], 0), faulty(two[1], after)))
    if "settings" in {cell.input for cell in two}:
        world.watch(tmp_path_factory.mktemp("settings") / "layer3.yaml")
    wrong = {name for pair in zip(seen(world), sound(), strict=True) for name, gap in gaps_of(*pair) if gap.wrong}
    assert wrong == set()
    assert len(published(world)) > 30
    assert replayed(world) == published(world)
    already = len(world.read("allocations"))
    world.crash()
    world.run()
    assert len(world.read("allocations")) == already
