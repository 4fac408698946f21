"""Version 4 takes over the state that version 3's own code left of its golden journal."""

import base64
import json
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import orjson
import pytest

from engines.models import calibration
from engines.models.calibration import Posterior
from engines.parameters import KellyParams
from engines.state import codec
from engines.state.holdings import hold
from streams.journal import entries as journal
from streams.journal.handover import MIGRATIONS, HandoverReader, taken_over
from streams.journal.migration_3_to_4 import migrate
from streams.processing.memory_cluster import Stored
from streams.stages.sizing import SizingFold

V3 = Path(__file__).parents[2] / "golden/v3"
ENTRIES = 1_700
"""Of the golden journal: in the middle of open claims, questions and cuts."""
PROGRAM = f"""
import base64, json, pathlib, sys
sys.path.insert(0, "")
sys.meta_path[:] = [each for each in sys.meta_path if "__editable__" not in getattr(each, "__module__", "")]
from streams import takeover
from streams.memory import Stored
from streams.sizing import SizingFold
lines = pathlib.Path("tests/golden/journal.jsonl").read_bytes().splitlines()[:{ENTRIES}]
fold = SizingFold(0)
for offset, line in enumerate(lines):
    fold.fold(Stored(offset, None, line))
now_ns = fold.state.progress.now_ns + 1_000_000_000
engine = takeover.engine(3, 4, now_ns)
fold.fold(Stored(len(lines), None, engine))
records = {{key: value for key in fold.touched if (value := fold.encode(key)) is not None}}
left = takeover.State(len(lines), fold.meta(), records)
told = [engine, *takeover.told(left, now_ns)]
json.dump([base64.b64encode(each).decode() for each in told], sys.stdout)
"""


@cache
def handed():
    """Return the entries by which version 3's code hands the golden journal over."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(V3 / "code.zip") as code:
            code.extractall(folder)
        (folder / "tests/golden/journal.jsonl").write_bytes((V3 / "journal.jsonl").read_bytes())
        done = subprocess.run([sys.executable, "-I", "-c", PROGRAM], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def lines():
    """Return version 3's journal up to and with the state that it handed over."""
    own = (V3 / "journal.jsonl").read_bytes().splitlines()[:ENTRIES]
    return [*own, *(base64.b64decode(each) for each in handed())]


def left():
    """Return the state as version 3 left it, meta and records."""
    reader = HandoverReader(4)
    for offset, value in enumerate(lines()):
        found = reader.take(journal.read(offset, value))
    assert found is not None
    return found


@pytest.fixture
def fold():
    """Return version 4's fold behind the handover."""
    sizing = SizingFold(0)
    take = sizing.refold()
    for offset, value in enumerate(lines()):
        assert take(Stored(offset, None, value)) == []
    return sizing


def test_every_record_is_one_of_version_4():
    """Each row has all fields that version 4 writes: read and written again it is the same bytes."""
    after = taken_over("here", left(), 4, MIGRATIONS)
    tables = {table for table, _ in after.records}
    assert tables >= {"kelly-posteriors", "pools", "predictions", "targets", "books", "gates", "markets", "questions"}
    for (table, key), value in after.records.items():
        if table in {"markets", "correlations"}:
            continue
        assert codec.encode(codec.decode(table, value)) == value, (table, key)


def test_books_go_on_where_they_were(fold):
    before = left()
    state = fold.state
    for (table, key), value in before.records.items():
        if table == "books":
            row = orjson.loads(value)
            book = state.book(key.decode())
            assert (book.value_usd, book.peak_usd, book.sequence, book.last_hash) == tuple(row[:4])
            assert book.changed_sequence == book.sequence
        if table == "targets":
            row = orjson.loads(value)
            target = state.targets.get(tuple(key.decode().split("|")))
            assert (target.cents, target.quantity, target.cut, target.cap_factor) == tuple(row)
    assert state.progress.now_ns == before.meta["now_ns"]
    assert state.progress.decision_version == 4


def test_what_is_meant_to_be_held_is_what_was_published(fold):
    for (portfolio,) in [key for key, _ in fold.state.books.items()]:
        published = {key[2]: target.quantity for key, target in fold.state.targets.items() if key[0] == portfolio}
        holdings = hold(fold.state, portfolio)
        assert holdings.intended_quantities == published
        assert set(fold.state.book(portfolio).managed) >= {symbol for symbol, held in published.items() if held}
        assert holdings.basis == "targets", "a report made before the handover says nothing about what followed"


def test_settings_at_the_old_default_get_the_new_one_and_others_stay(fold):
    old = left().meta["settings"]["position_sizing"]["bayesian_kelly"]
    now = fold.state.params.position_sizing.bayesian_kelly
    fresh = KellyParams()
    assert old["effective_outcomes"] == 400.0
    assert now.effective_outcomes == fresh.effective_outcomes
    for name, value in old.items():
        was_default = value == {"min_win_rate": 0.45, "min_edge": 0.02, "prior_calibration": 0.5}.get(name)
        if name not in {"effective_outcomes", "winsor_sd"} and not was_default:
            assert getattr(now, name) == value, name


def version_3_posterior(claims, kelly):
    """Return what version 3 made of outcomes (x, z) of weight 1 that it clips nowhere."""
    strength, slope, shape = kelly["prior_strength"], kelly["prior_calibration"], kelly["prior_shape"]
    keep = 1.0 - 1.0 / kelly["effective_outcomes"]

    def prior(square):
        weight = strength * square
        return (
            weight,
            weight * slope,
            2 * shape,
            2 * kelly["prior_variance"] * (shape - 1) + weight * slope * slope,
            kelly["win_prior"],
            kelly["win_prior"],
        )

    square = claims[0][0] ** 2
    h = prior(square)
    for x, z in claims:
        square = kelly["claim_decay"] * square + (1 - kelly["claim_decay"]) * x * x
        new = (x * x, x * z, 1.0, z * z, float(z > 0), float(z <= 0))
        h = tuple(keep * a + (1 - keep) * b + c for a, b, c in zip(h, prior(square), new, strict=True))
    return [*h[:4], square, *h[4:], len(claims)]


def migrated(posterior, kelly):
    settings = {
        "position_sizing": {"bayesian_kelly": kelly, "costs": {"fee_ratio": 0.0005, "slippage_ratio": 0.0}},
    }
    key = ("kelly-posteriors", b"main|a|BTC-USD")
    rows = {key: orjson.dumps([posterior, []])}
    _, after = migrate({"settings": settings, "now_ns": 1}, rows)
    return orjson.loads(after[key])[0], orjson.loads(after["pools", b"main|a"])


KELLY_3 = KellyParams().model_dump() | {
    "effective_outcomes": 400.0,
    "min_edge": 0.02,
    "min_win_rate": 0.45,
    "prior_calibration": 0.5,
    "winsor_sd": 6.0,
}


def test_what_is_left_of_a_posterior_are_the_sums_of_its_outcomes():
    """A strategy that always claims the same: the prior's part is exact, so the decayed sums must come out."""
    random = Random(5)
    claims = [(0.3, 0.3 + random.gauss(0, 0.7)) for _ in range(900)]
    found, pool = migrated(version_3_posterior(claims, KELLY_3), KELLY_3)
    keep = 1 - 1 / 400
    weights = [keep ** (len(claims) - 1 - number) for number in range(len(claims))]
    sums = [
        sum(w * term(x, z) for w, (x, z) in zip(weights, claims, strict=True))
        for term in (lambda x, _: x * x, lambda x, z: x * z, lambda _x, _z: 1.0, lambda _, z: z * z)
    ]
    assert found[:4] == pytest.approx(sums, rel=1e-9)
    assert found[4] == pytest.approx(0.09)
    assert found[5] + found[6] == pytest.approx(sums[2])
    assert found[8:] == pytest.approx([sums[0] * 150 / 400, sums[1] * 150 / 400])
    assert pool == [found[0], found[1], 1]


@pytest.mark.parametrize("seed", range(20))
def test_no_posterior_becomes_one_that_cannot_be(seed):
    """Claims of all sizes, a slip of 2,000 sd among them: no negative sum, and no slope beyond the residual."""
    random = Random(seed)
    claims = [(random.uniform(0, 2) ** 3, random.gauss(0, 1)) for _ in range(random.randint(1, 60))]
    claims[random.randrange(len(claims))] = (2_000.0, random.gauss(0, 1))
    found = Posterior(*migrated(version_3_posterior(claims, KELLY_3), KELLY_3)[0])
    assert min(found.h1, found.h3, found.h4, found.wins, found.losses) >= 0.0
    assert found.h1 <= found.h3 * (1 + 1e-12), "no more weight than so many believed claims have"
    assert found.h2 * found.h2 <= found.h1 * found.h4 * (1 + 1e-9)
    known = calibration.belief(calibration.with_prior(found, KellyParams()))
    assert known.residual_variance > 0.0


def test_it_decides_after_the_handover_and_no_policy_has_evidence(fold):
    now_ns = fold.state.progress.now_ns + 10**9
    assert {gate.status for _, gate in fold.state.gates.items()} <= {"collecting", "closed"}
    assert all(gate.windows == 0 for _, gate in fold.state.gates.items())
    value = journal.internal(
        "control",
        {
            "control_id": "halt",
            "kind": "trading_state",
            "payload": {"scope": "all", "state": "HALTED"},
            "reason": "test",
            "by": "test",
            "timestamp_ns": now_ns,
        },
        now_ns,
    )
    sends = fold.fold(Stored(len(lines()), None, value))
    found = [orjson.loads(send.value) for send in sends if send.topic == "allocations"]
    assert found
    assert {fields["decision_version"] for fields in found} == {4}
    assert all(not any(fields["allocations"].values()) for fields in found)
