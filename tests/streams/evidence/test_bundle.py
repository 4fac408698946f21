"""A bundle proves its decision in a process that has neither Kafka nor the worker, and nothing else."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import Driver, play, priced, scripts, signal

from schemas.errors import SizingError
from streams.evidence import verifier
from streams.evidence.bundle import Bundle
from streams.evidence.decision_id import parse
from streams.journal import entries as journal

ROOT = Path(__file__).parents[3]
ALONE = """
import runpy, sys
for name in ("streams", "config", "aiokafka", "faust", "mode", "rocksdict", "aiohttp", "click", "yaml"):
    sys.modules[name] = None  # an import of it fails
def guard(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError("no network")
sys.addaudithook(guard)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def bundled(driver, which=-1):
    """Return the bundle of one of a driver's decisions on partition 0."""
    entries = [entry.value for entry in driver.cluster.log(journal.TOPIC, 0).read(0)]
    published = driver.cluster.log("allocations", 0).read(0)[which].value
    name = parse(orjson.loads(published)["decision_id"])
    return Bundle(name, published, entries[: name.offset + 1])


def day():
    driver = priced(Driver(partitions=1))
    for number in range(4):
        driver.publish("signals", signal(driver.now_ns, signal_id=f"s-{number}", valid_for_s=86_400))
        driver.advance(1.0)
    return bundled(driver)


BUNDLE = day()


def unpacked(bundle, folder):
    """Write a bundle and unpack it."""
    bundle.write(folder / "proof.zip")
    with zipfile.ZipFile(folder / "proof.zip") as archive:
        archive.extractall(folder / "proof")
    return folder / "proof"


def forged(folder, name, before, after, *, manifest=True):
    """Change a file of an unpacked bundle, and what the manifest says of it."""
    value = (folder / name).read_bytes()
    assert before in value
    value = value.replace(before, after, 1)
    (folder / name).write_bytes(value)
    if manifest:
        told = json.loads((folder / "bundle.json").read_bytes())
        told["sha256"][name] = hashlib.sha256(value).hexdigest()
        (folder / "bundle.json").write_text(json.dumps(told))
    return folder


def verified(folder, capsys):
    """Return exit code and what is said, by the code of the package itself."""
    code = verifier.main(folder)
    return code, capsys.readouterr().out


# -- alone -------------------------------------------------------------------------------------------------------------
def run_alone(folder):
    command = [sys.executable, "-c", ALONE, str(folder / "verify.py")]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_bundle_is_verified_where_there_is_no_kafka_no_worker_and_no_network(tmp_path):
    folder = unpacked(BUNDLE, tmp_path)
    code, out, err = run_alone(folder)
    digest = hashlib.sha256(BUNDLE.decision).hexdigest()
    assert (code, err) == (0, "")
    assert out == f"ok: {BUNDLE.name} recomputed from {len(BUNDLE.entries)} journal entries; sha256 {digest}\n"
    forged(folder, "journal.jsonl", b'\\"confidence\\":0.8', b'\\"confidence\\":0.7')
    code, out, err = run_alone(folder)
    assert (code, out.startswith("differs: "), err) == (4, True, "")


# -- what it holds -----------------------------------------------------------------------------------------------------
def test_a_bundle_holds_bytes_as_they_were_versions_and_the_packages_own_verifier(tmp_path):
    folder = unpacked(BUNDLE, tmp_path)
    assert (folder / "decision.json").read_bytes() == BUNDLE.decision
    assert (folder / "journal.jsonl").read_bytes().splitlines() == BUNDLE.entries
    assert (folder / "verify.py").read_bytes() == (ROOT / "streams/evidence/verifier.py").read_bytes()
    assert "himari-layer3==" in (folder / "requirements.txt").read_text()
    assert "python verify.py" in (folder / "README.md").read_text()
    BUNDLE.write(tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "proof.zip").read_bytes()


def test_an_entry_with_a_line_feed_cannot_be_bundled(tmp_path):
    entries = [*BUNDLE.entries]
    entries[2] = entries[2].replace(b"{", b"{\n", 1)
    with pytest.raises(SizingError, match="journal 0:2 contains a line feed"):
        BUNDLE._replace(entries=entries).write(tmp_path / "x.zip")


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(scripts)
def test_every_decision_of_any_day_verifies_and_entries_are_read_as_the_worker_reads_them(script):
    driver = priced(Driver(partitions=1))
    play(driver, script)
    if not driver.cluster.log("allocations", 0).read(0):
        return
    found = bundled(driver)
    assert found.finding() == ""
    for offset, raw in enumerate(found.entries):
        assert verifier.read(offset, raw) == journal.read(offset, raw)


numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False))


@given(
    st.recursive(
        numbers | st.none() | st.booleans() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_read_as_the_worker_reads_it(value):
    text = json.dumps(value, ensure_ascii=False)
    try:
        wanted = orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    found = verifier._parsed(text)
    assert found == wanted
    assert repr(found) == repr(wanted)


# -- what is wrong is named --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "before", "after", "finding"),
    [
        (
            "decision.json",
            b'"portfolio_value":100000.0',
            b'"portfolio_value":100000.5',
            "portfolio_value: published 100000.5, computed 100000.0",
        ),
        ("decision.json", b'"sequence":', b'"sequence": ', "byte "),
        ("decision.json", b"{", b"", "the bytes differ, the fields do not"),
        ("decision.json", b"{", b"[" * 100_000, "byte 0"),
        ("journal.jsonl", b"43500.0", b"43501.0", "published"),
        ("journal.jsonl", b'"headers":[]', b'"headers": []', "inputs_hash: published"),
        ("journal.jsonl", b'"kind":"signal"', b'"kind":"sgnal"', "cannot be folded: ValueError"),
        ("journal.jsonl", b'"kind":"step"', b"\x1b[2J", "journal 0:1 cannot be folded"),
    ],
)
def test_what_was_changed_is_named(name, before, after, finding, tmp_path, capsys):
    folder = forged(unpacked(BUNDLE, tmp_path), name, before, after)
    code, out = verified(folder, capsys)
    assert (code, out.startswith("differs: ")) == (4, True)
    assert finding in out
    assert "\x1b" not in out
    assert out.isascii()


@pytest.mark.parametrize("name", ["decision.json", "journal.jsonl"])
def test_a_file_that_is_not_the_one_that_was_bundled_is_named(name, tmp_path, capsys):
    folder = forged(unpacked(BUNDLE, tmp_path), name, b"0", b"1", manifest=False)
    code, out = verified(folder, capsys)
    assert code == 4
    assert f"{name} was changed after bundling" in out


@given(st.data())
def test_any_changed_byte_of_journal_or_decision_is_found(data):
    journal_bytes = data.draw(st.booleans())
    raw = bytearray(b"\n".join(BUNDLE.entries) if journal_bytes else BUNDLE.decision)
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    if journal_bytes:
        assert BUNDLE._replace(entries=bytes(raw).split(b"\n")).finding()
    else:
        assert BUNDLE._replace(decision=bytes(raw)).finding()


@pytest.mark.parametrize("drop", range(len(BUNDLE.entries)))
def test_a_dropped_doubled_or_swapped_entry_is_found(drop):
    entries = BUNDLE.entries
    assert BUNDLE._replace(entries=[*entries[:drop], *entries[drop + 1 :]]).finding()
    assert BUNDLE._replace(entries=[*entries[:drop], entries[drop], *entries[drop:]]).finding()
    if drop:
        swapped = [*entries[: drop - 1], entries[drop], entries[drop - 1], *entries[drop + 1 :]]
        assert BUNDLE._replace(entries=swapped).finding()


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"decision_version": 999}, "the bundle has decision version 999, installed is"),
        ({"offset": 999}, "journal.jsonl must contain entries 0 to 999"),
        ({"sha256": {}}, "cannot verify"),
    ],
)
def test_a_bundle_that_is_not_whole_or_of_another_version_cannot_be_verified(change, finding, tmp_path, capsys):
    folder = unpacked(BUNDLE, tmp_path)
    told = json.loads((folder / "bundle.json").read_bytes())
    (folder / "bundle.json").write_text(json.dumps({**told, **change}))
    code, out = verified(folder, capsys)
    assert (code, finding in out) == (1, True)


def test_a_file_that_is_missing_is_named(tmp_path, capsys):
    folder = unpacked(BUNDLE, tmp_path)
    (folder / "journal.jsonl").unlink()
    code, out = verified(folder, capsys)
    assert (code, "journal.jsonl" in out) == (1, True)


def test_a_decision_of_another_portfolio_is_none():
    name = BUNDLE.name._replace(portfolio_id="alpha")
    assert BUNDLE._replace(name=name).finding() == "the last journal entry has no decision for alpha"
