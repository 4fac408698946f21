"""A bundle is data that proves its decision, in a process that has neither Kafka nor the worker."""

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
from tools.verifier import build

ROOT = Path(__file__).parents[3]
ALONE = """
import runpy, sys
for name in ("streams", "config", "aiokafka", "faust", "mode", "rocksdict", "aiohttp", "click", "yaml"):
    sys.modules[name] = None  # an import of it fails
def guard(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError("no network")
sys.addaudithook(guard)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
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


def written(folder, files=None):
    """Write a ZIP with these members, those of the bundle by default."""
    path = folder / "proof.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in (files or BUNDLE.files()).items():
            archive.writestr(name, value)
    return path


def forged(name, before, after, *, manifest=True):
    """Return the bundle's members with one changed, and what the manifest says of it."""
    files = BUNDLE.files()
    assert before in files[name]
    files[name] = files[name].replace(before, after, 1)
    if manifest:
        told = json.loads(files["bundle.json"])
        told["sha256"][name] = hashlib.sha256(files[name]).hexdigest()
        files["bundle.json"] = json.dumps(told).encode()
    return files


def verified(folder, files):
    """Return exit code and what is said of a ZIP with these members."""
    return verifier.verdict(written(folder, files))


# -- alone -------------------------------------------------------------------------------------------------------------
def run_alone(program, bundle, folder):
    command = [sys.executable, "-I", "-c", ALONE, str(program), str(bundle)]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_one_file_verifies_a_bundle_where_there_is_no_package_no_kafka_and_no_network(tmp_path):
    program = build(tmp_path / "dist")
    BUNDLE.write(tmp_path / "proof.zip")
    code, out, err = run_alone(program, tmp_path / "proof.zip", tmp_path)
    digest = hashlib.sha256(BUNDLE.decision).hexdigest()
    assert (code, err) == (0, "")
    assert out == f"ok: {BUNDLE.name} recomputed from {len(BUNDLE.entries)} journal entries; sha256 {digest}\n"
    changed = written(tmp_path, forged("journal.jsonl", b'\\"confidence\\":0.8', b'\\"confidence\\":0.7'))
    code, out, err = run_alone(program, changed, tmp_path)
    assert (code, out.startswith("differs: "), err) == (4, True, "")


def test_the_verifier_is_the_same_file_whenever_it_is_built_and_says_its_hash(tmp_path):
    one, other = build(tmp_path / "one"), build(tmp_path / "other")
    assert one.read_bytes() == other.read_bytes()
    told = one.with_suffix(".pyz.sha256").read_text().split()
    assert told == [hashlib.sha256(one.read_bytes()).hexdigest(), one.name]


EVIL = b"import pathlib; pathlib.Path('was_run').write_text('yes'); print('ok: forged')"


def test_nothing_that_a_bundle_contains_is_run_or_written(tmp_path):
    """As a stranger would send it: packages and programs of the verifier's names, and paths that lead elsewhere."""
    program = build(tmp_path / "dist")
    evil = dict.fromkeys(("engines/__init__.py", "schemas/__init__.py", "verify.py", "sitecustomize.py"), EVIL)
    files = {**evil, **forged("decision.json", b"100000.0", b"100000.5"), "../outside": EVIL}
    bundle = written(tmp_path, files)
    before = sorted(tmp_path.rglob("*"))
    for command in ([program, bundle], ["-m", "streams", "audit", "check", bundle]):
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, b"forged" in done.stdout) == (4, False), done
    assert sorted(tmp_path.rglob("*")) == before


# -- what it holds -----------------------------------------------------------------------------------------------------
def test_a_bundle_holds_bytes_as_they_were_and_versions_and_no_program(tmp_path):
    files = BUNDLE.files()
    assert sorted(files) == ["README.md", "bundle.json", "decision.json", "journal.jsonl"]
    assert files["decision.json"] == BUNDLE.decision
    assert files["journal.jsonl"].splitlines() == BUNDLE.entries
    assert json.loads(files["bundle.json"])["packages"].keys() == {
        "himari-layer3",
        "numba",
        "numpy",
        "orjson",
        "pydantic",
    }
    assert b"himari audit check" in files["README.md"]
    for name in ("proof.zip", "again.zip"):
        BUNDLE.write(tmp_path / name)
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
def test_what_was_changed_is_named(name, before, after, finding, tmp_path):
    code, out = verified(tmp_path, forged(name, before, after))
    assert (code, out.startswith("differs: ")) == (4, True)
    assert finding in out
    assert "\x1b" not in out
    assert out.isascii()


@pytest.mark.parametrize("name", ["decision.json", "journal.jsonl"])
def test_a_file_that_is_not_the_one_that_was_bundled_is_named(name, tmp_path):
    code, out = verified(tmp_path, forged(name, b"0", b"1", manifest=False))
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
    ("change", "code", "finding"),
    [
        ({"decision_version": 999}, 8, "the bundle has decision version 999, installed is"),
        ({"offset": 999}, 5, "journal.jsonl must contain entries 0 to 999"),
        ({"sha256": {}}, 5, "bundle.json must have 'decision.json'"),
        ({"sha256": 7}, 5, "cannot verify"),
        ({"offset": "x"}, 5, "cannot verify"),
    ],
)
def test_a_bundle_that_is_not_whole_or_of_another_version_cannot_be_verified(change, code, finding, tmp_path):
    files = BUNDLE.files()
    files["bundle.json"] = json.dumps({**json.loads(files["bundle.json"]), **change}).encode()
    found, out = verified(tmp_path, files)
    assert (found, finding in out) == (code, True), out


@pytest.mark.parametrize("name", ["bundle.json", "decision.json", "journal.jsonl"])
def test_a_member_that_is_missing_or_doubled_is_named(name, tmp_path):
    files = BUNDLE.files()
    value = files.pop(name)
    assert verified(tmp_path, files) == (5, f"cannot verify: {name} must be in the bundle once, was 0 times")
    BUNDLE.write(tmp_path / "proof.zip")
    with zipfile.ZipFile(tmp_path / "proof.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(name, value)
    told = f"cannot verify: {name} must be in the bundle once, was 2 times"
    assert verifier.verdict(tmp_path / "proof.zip") == (5, told)


def test_a_member_is_read_up_to_a_size(tmp_path):
    """A ZIP of a few kB that unpacks to more than a manifest can have."""
    files = {**BUNDLE.files(), "bundle.json": b" " * (verifier.LARGEST["bundle.json"] + 1)}
    path = written(tmp_path, files)
    assert path.stat().st_size < 20_000
    assert verifier.verdict(path) == (5, "cannot verify: bundle.json must have at most 1048576 bytes")


@pytest.mark.parametrize("value", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_bundle_is_said_in_a_line(value, tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(value)
    code, out = verifier.verdict(path)
    assert (code, out.startswith("cannot verify: "), "\n" in out) == (5, True, False)
    assert verifier.verdict(tmp_path / "absent.zip")[0] == 5


def test_a_damaged_zip_is_said_in_a_line(tmp_path):
    BUNDLE.write(tmp_path / "proof.zip")
    whole = (tmp_path / "proof.zip").read_bytes()
    for place in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        (tmp_path / "x.zip").write_bytes(damaged)
        code, out = verifier.verdict(tmp_path / "x.zip")
        assert (code in {0, 4, 5, 8}, "\n" in out) == (True, False)


def test_a_decision_of_another_portfolio_is_none():
    name = BUNDLE.name._replace(portfolio_id="alpha")
    assert BUNDLE._replace(name=name).finding() == "the last journal entry has no decision for alpha"
