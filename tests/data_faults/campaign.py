"""The campaign: the same world with and without one fault, and what is different between the two."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from data_faults.faults import LASTS, Cell, Fault
from data_faults.world import BATCHED, COINS, SCALED, WARM_STEPS, Message, Sending, World, played, warm, whole

FIRST = WARM_STEPS + 2
"""The step of the fault: the strategy whose messages are hurt renews its claims in it."""
AFTER = 24
"""Steps that are watched after a fault: four minutes."""
BAND = SCALED.position_sizing.band_ratio
MINIMUM_USD = SCALED.validation_criteria.min_position_usd
DLQ = ("prices", "cascade-indicators", "signals", "outcomes", "positions", "control")
COUNTERS = (
    "late_ticks_total",
    "suspect_ticks_total",
    "suspect_prices_total",
    "clipped_ticks_total",
    "clipped_prices_total",
    "clipped_claims_total",
    "older_inputs_dropped_total",
    "duplicates_dropped_total",
    "refused_symbols_total",
    "rl_answers_total",
)
ELSEWHERE = {"correlation", "drift"}
"""Alerts that say nothing of an input."""


WHOLE_RECORD = {"stuck", "delayed", "reordered", "lost", "emptied", "truncated"}
"""What happens to a record happens to every tick in it."""


class Step(NamedTuple):
    """What is seen of one step."""

    targets: list[dict[str, float]]
    """Published quantities: what stood at its begin, then each allocation's."""
    prices: dict[str, float]
    known: dict[str, Any]
    """What of every input was processed, by coin and cell."""


class Run(NamedTuple):
    """A world that was played to its end."""

    steps: list[Step]
    told: Counter[str]
    counted: Counter[str]


class Result(NamedTuple):
    """What one fault did."""

    moved_usd: float
    """The largest difference of a target from the world without the fault."""
    moved_share: float
    """The same, as a share of the target."""
    bands: float
    """The same, in no-trade bands."""
    wrong: list[str]
    """Coins that had a target of the wrong direction."""
    flat: list[str]
    """Coins whose target was 0 and should not have been."""
    lost: list[str]
    """Good neighbours that were not processed."""
    told: list[str]
    """Alerts and dead letters that the world without the fault does not have."""
    counted: list[str]
    """Counters that rose."""
    heals: int | None
    """Steps after the fault until the book is the other's again, to stay; None: not seen."""


# -- playing -----------------------------------------------------------------------------------------------------------
def play(spoil: Callable[[Message, int], list[Sending]], steps: int, with_file: bool) -> Run:  # noqa: FBT001
    """Play a fork of the warm world to its end."""
    world = warm().fork(spoil)
    already = {topic: len(world.read(topic)) for topic in topics()}
    with tempfile.TemporaryDirectory() as folder:
        if with_file:
            world.watch(Path(folder) / "layer3.yaml")
        seen = [Step(targets, dict(world.account.prices), known(world)) for targets in played(world, steps)]
    return Run(seen, told(world, already), counted(world))


@cache
def clean(steps: int) -> Run:
    return play(whole, steps, with_file=False)


@cache
def result(cell: Cell) -> Result:
    """Play a cell's fault and compare."""
    end = FIRST + (LASTS if cell.lasting else 1)
    steps = end - WARM_STEPS + AFTER
    fault = Fault(cell, FIRST, end, warm().said)
    hurt, sound = play(fault, steps, with_file=cell.input == "settings"), clean(steps)
    gaps = [dict(gaps_of(*pair)) for pair in zip(hurt.steps, sound.steps, strict=True)]
    worst = max((gap for step in gaps for gap in step.values()), key=lambda gap: gap.bands)
    exempt = set(cell.coins if cell.kind == "swapped" else cell.coins[:1])
    if cell.input == "batch" and cell.kind in WHOLE_RECORD:
        exempt |= set(BATCHED)
    return Result(
        worst.usd,
        worst.share,
        worst.bands,
        names(gaps, lambda gap: gap.wrong),
        names(gaps, lambda gap: gap.flat),
        neighbours(hurt, sound, exempt),
        sorted(map(str, (hurt.told - sound.told))),
        sorted(hurt.counted - sound.counted),
        healing([max(gap.bands for gap in step.values()) for step in gaps], max(fault.hurt.values()) + 1 - WARM_STEPS),
    )


# -- comparing ---------------------------------------------------------------------------------------------------------
class Gap(NamedTuple):
    """How far one coin's targets of one step are from those without the fault."""

    usd: float
    share: float
    bands: float
    wrong: bool
    flat: bool


def gaps_of(hurt: Step, sound: Step) -> Iterator[tuple[str, Gap]]:
    """Compare every target of a step with the nearest one of the other world in that step."""
    for name, price in sound.prices.items():
        right = [targets[name] for targets in sound.targets]
        found = [
            min((gap(targets[name], each, price) for each in right), key=lambda gap: gap.bands)
            for targets in hurt.targets
        ]
        yield name, max(found, key=lambda gap: gap.bands)


def gap(quantity: float, right: float, price: float) -> Gap:
    usd, size_usd = abs(quantity - right) * price, abs(right) * price
    share = usd / size_usd if size_usd else float(usd > 0)
    return Gap(usd, share, usd / max(BAND * size_usd, MINIMUM_USD), quantity * right < 0, right != 0 == quantity)


def names(gaps: list[dict[str, Gap]], is_so: Callable[[Gap], bool]) -> list[str]:
    return [name for name in COINS if any(is_so(step[name]) for step in gaps)]


def healing(bands: list[float], end: int) -> int | None:
    """Return how many steps after the end the two books are the same again, to stay.

    That is within two bands: each may be a band away from what it would trade to.
    """
    apart = [number for number, each in enumerate(bands) if each > 2.0]
    last = apart[-1] + 1 if apart else 0
    return None if last == len(bands) else max(0, last - end)


def neighbours(hurt: Run, sound: Run, exempt: set[str]) -> list[str]:
    """Return what was processed without the fault and not with it, besides the victim's own."""
    return sorted(
        {
            name
            for one, other in zip(hurt.steps, sound.steps, strict=True)
            for name, value in other.known.items()
            if not any(coin in name for coin in exempt) and one.known.get(name) != value
        }
    )


# -- what is seen of a world -------------------------------------------------------------------------------------------
def known(world: World) -> dict[str, Any]:
    """Return what the last inputs of every coin and cell left in the state."""
    state = world.state()
    found: dict[str, Any] = {}
    for name in COINS:
        market = state.markets[(name,)]
        found[f"price {name}"] = (market.bars.last_price, market.bars.last_ns)
        found[f"readings {name}"] = market.gauges
    for (_, strategy, name), cell in state.predictions.items():
        found[f"signal {strategy} {name}"] = (cell.last_ns, cell.forecast.signal_id)
    for (_, strategy, name), learned in state.posteriors.items():
        found[f"outcomes {strategy} {name}"] = learned.spans
    return found


def topics() -> list[str]:
    return ["alerts", *(f"{topic}.dlq" for topic in DLQ)]


def told(world: World, already: dict[str, int]) -> Counter[str]:
    """Return the alerts and dead letters since the fork, in words."""
    found: Counter[str] = Counter()
    for record in world.read("alerts")[already["alerts"] :]:
        alert = orjson.loads(record.value or b"")
        if alert["kind"] not in ELSEWHERE:
            answer = f" {alert['result'].partition(':')[0]}" if alert["kind"] == "control_applied" else ""
            found[f"alert {alert['kind']}{answer}"] += 1
    for topic in topics()[1:]:
        for record in world.read(topic)[already[topic] :]:
            headers = {name: value.decode() for name, value in record.headers}
            where = f" {headers['himari.error.field']}" if headers["himari.error.field"] else ""
            found[f"{topic}: {headers['himari.error.code']}{where}"] += 1
    return found


def counted(world: World) -> Counter[str]:
    """Return the counters of what was dropped, clipped or suspected."""
    counts = world.context.metrics.counts if world.context.metrics else {}
    found: Counter[str] = Counter()
    for name in COUNTERS:
        for labels, value in counts[name].items():
            if value and labels != ("counted",):
                found[f"{name.removesuffix('_total')}{' ' if labels else ''}{' '.join(labels)}"] += int(value)
    return found
