"""An archive outlasts the cluster: written once, found spoiled wherever it is touched, and verified from anywhere."""

import asyncio
import hashlib
import re
import shutil

import orjson
import pytest
from archived_day import DAY, END, ID, Logs, archived, chained, read_lines
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import NotFound, SizingError, VerificationMismatch
from streams.archives.archive import Archive
from streams.archives.archiver import alone
from streams.archives.check import check
from streams.archives.files import ArchivedRecord, content, read_records, records_file
from streams.archives.manifest import NAME, Manifest
from streams.audits.plan import Ends, Range, planned
from streams.audits.segment import SegmentAudit, combine
from streams.cli import cli
from streams.journal import entries as journal


def verified(folder, topics=DAY, wanted=Range(), first=0):  # noqa: B008 (a value)
    """Verify an archive and the rest of the cluster, which has forgotten all below `first`."""
    archive, logs = Archive(folder), Logs(topics, first)
    ends = Ends(len(topics[journal.TOPIC]), len(topics["allocations"]), marks=archive.marks(0))

    async def chunks(topic, first, end):
        kept = min(end, archive.end(topic, 0))
        for records in archive.chunks(topic, 0, first, kept):
            yield records
        async for records in logs.chunks(topic, 0, max(first, kept), end):
            yield records

    async def one(piece):
        stretch = SegmentAudit(0, *([archive.checkpoint(0, piece.start.offset)] if piece.start.offset >= 0 else []))
        entries = chunks(journal.TOPIC, piece.start.offset + 1, piece.end)
        return await stretch.verify(
            entries, chunks("allocations", piece.start.outputs, piece.outputs_end), open_end=piece.open_end
        )

    pieces = planned(0, ends, wanted, None)
    return combine(0, [asyncio.run(one(piece)) for piece in pieces])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    archived(folder, rest=True)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "archive")
    return tmp_path / "archive"


# -- what is written ---------------------------------------------------------------------------------------------------
def test_every_record_comes_back_with_offset_time_key_bytes_and_headers(whole):
    archive = Archive(whole)
    for topic, records in DAY.items():
        assert [each for chunk in archive.chunks(topic, 0, 0, 10**6) for each in chunk] == records
        assert [each for chunk in archive.chunks(topic, 0, 3, 11) for each in chunk] == records[3:11]


BYTES = st.one_of(st.none(), st.binary(max_size=9))
RECORDS = st.builds(
    ArchivedRecord, st.integers(0, 2**62), st.integers(0, 2**62), BYTES, BYTES, st.just((("a", b"\0\xff"), ("a", b"")))
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(RECORDS, min_size=1, max_size=5))
def test_any_record_comes_back_and_its_content_has_one_hash(tmp_path, records):
    path = tmp_path / "records.parquet"
    path.write_bytes(records_file(records))
    assert read_records(path, "the file", len(records)) == records
    assert content(read_records(path, "the file", len(records))) == content(records)
    for place, record in enumerate(records):
        for changed in (
            record._replace(timestamp=record.timestamp + 1),
            record._replace(value=(record.value or b"") + b"x"),
        ):
            assert content([*records[:place], changed, *records[place + 1 :]]) != content(records)


def test_only_whole_segments_are_closed_and_the_next_run_goes_on(tmp_path):
    first = archived(tmp_path, upto=20)
    assert [(each.first, each.last) for each in first] == [(0, 7), (8, 15)]
    assert archived(tmp_path, upto=20) == [], "nothing more is closed"
    head = Manifest(tmp_path).head
    assert [(each.first, each.last) for each in archived(tmp_path)] == [(16, 23)]
    assert [(each.first, each.last) for each in archived(tmp_path, rest=True)] == [(24, END - 1)]
    found = check(tmp_path, head=head)
    assert (found.findings, found.records) == ([], sum(map(len, DAY.values())))
    assert archived(tmp_path, rest=True) == []


@pytest.mark.parametrize("entries", [1, 3])
def test_a_segment_ends_where_it_should_whatever_its_size(tmp_path, entries):
    """With one entry to a segment every allocation is the first of a next one."""
    assert len(archived(tmp_path, entries=entries, rest=True)) == -(-END // entries)
    assert check(tmp_path).findings == []
    assert verified(tmp_path, first=END).checked == 12


def test_a_run_that_was_broken_off_leaves_nothing_half(tmp_path):
    """Files stand there that no line names, and one that is not even whole; the next run writes them again."""
    archived(tmp_path, upto=8)
    before = (tmp_path / NAME).read_bytes()
    archived(tmp_path, upto=16)
    after = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(before)
    (tmp_path / "journal/0/.00000000000000000008.parquet.tmp").write_bytes(b"PAR1 half")
    assert verified(tmp_path).ok, "what is in the manifest is whole"
    assert any("not in the manifest" in each for each in check(tmp_path).findings)
    archived(tmp_path, upto=16)
    assert (tmp_path / NAME).read_bytes() == after
    assert check(tmp_path).findings == []


def test_two_at_once_are_refused(tmp_path):
    with alone(tmp_path), pytest.raises(SizingError, match="another process"), alone(tmp_path):
        pass


def test_who_archives_next_clears_away_what_is_half(tmp_path):
    half = tmp_path / "journal/0/.00000000000000000000.parquet.tmp"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"PAR1")
    with alone(tmp_path):
        assert not half.exists()


def test_another_journal_and_no_archive_are_told_apart(whole, tmp_path):
    with pytest.raises(VerificationMismatch, match="of journal DRIVER22"):
        Manifest.begun(whole, "OTHER222", 1, 1)
    with pytest.raises(NotFound, match="is not an archive"):
        Archive(tmp_path)


@pytest.mark.parametrize("topic", DAY)
def test_what_does_not_verify_is_not_archived(tmp_path, topic):
    records = list(DAY[topic])
    place = next(n for n in range(len(records) - 1, -1, -1) if b"signal" in records[n].value)
    records[place] = records[place]._replace(value=records[place].value.replace(b"p", b"q", 1))
    with pytest.raises(VerificationMismatch, match="journal 0 not archived from entry"):
        archived(tmp_path, {**DAY, topic: records}, rest=True)
    assert check(tmp_path).findings == []


# -- verified from there -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("first", [0, 8, 16, 24, END])
def test_verification_goes_on_where_the_cluster_has_forgotten(whole, first):
    assert verified(whole, first=first)[:5] == (12, 0, 0, 0, 0)


def test_without_the_archive_what_is_forgotten_is_missed(tmp_path):
    Manifest.begun(tmp_path, ID, 1, 1)
    found = verified(tmp_path, first=8)
    assert (found.ok, found.first_mismatch) == (False, "journal 0:0 is missing, next is offset 8")


@pytest.mark.parametrize("since", range(1, END))
def test_from_an_entry_begins_at_the_nearest_checkpoint_before_it(whole, since):
    marks = [mark.offset for mark in Archive(whole).marks(0)]
    ends = Ends(END, len(DAY["allocations"]), marks=Archive(whole).marks(0))
    start = planned(0, ends, Range(since=since), None)[0].start.offset
    assert start == max([offset for offset in marks if offset < since], default=-1)
    found = verified(whole, wanted=Range(since=since))
    later = [each for each in DAY["allocations"] if orjson.loads(each.value)["journal"]["offset"] > start]
    assert (found.ok, found.checked, found.entries) == (True, len(later), END - 1 - start)


@pytest.mark.parametrize("until", range(1, END + 1))
def test_to_an_entry_ends_before_it(whole, until):
    found = verified(whole, wanted=Range(until=until))
    earlier = [each for each in DAY["allocations"] if orjson.loads(each.value)["journal"]["offset"] < until]
    assert (found.ok, found.checked, found.entries) == (True, len(earlier), until)


def test_a_time_begins_at_the_checkpoint_before_it(whole):
    marks = Archive(whole).marks(0)
    ends = Ends(END, len(DAY["allocations"]), marks=marks)
    for mark in marks[:-1]:
        assert planned(0, ends, Range(since_ns=mark.now_ns), None)[0].start == mark
        assert planned(0, ends, Range(since_ns=mark.now_ns - 1), None)[0].start.offset < mark.offset


# -- tampering ---------------------------------------------------------------------------------------------------------
FILES = ("journal/0/00000000000000000008.parquet", "allocations/0/00000000000000000003.parquet")
SNAPSHOT = "checkpoints/0/00000000000000000015.parquet"


def changed(path, place=None):
    value = bytearray(path.read_bytes())
    value[len(value) // 2 if place is None else place] ^= 1
    path.write_bytes(bytes(value))


def lines(folder):
    return (folder / NAME).read_bytes().splitlines(keepends=True)


def rewritten(change):
    def tamper(folder):
        (folder / NAME).write_bytes(b"".join(change(lines(folder))))

    return tamper


def forged(kind, field, value):
    """Change a field of a line and chain all that follow anew, as somebody would who knows how."""

    def tamper(folder):
        fields = read_lines(folder)
        place = next(n for n, each in enumerate(fields) if each["kind"] == kind and n > 4)
        fields[place][field] = value(fields[place][field])
        chained(folder, fields)

    return tamper


def swap(folder):
    one, other = folder / "journal/0/00000000000000000000.parquet", folder / FILES[0]
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


TAMPERED = {
    "a byte of a journal segment": (lambda f: changed(f / FILES[0]), "journal 0:8 to 15"),
    "a byte of an allocations segment": (lambda f: changed(f / FILES[1]), "allocations 0:3 to"),
    "a byte of a checkpoint": (lambda f: changed(f / SNAPSHOT), "checkpoint of journal 0 at entry 15"),
    "a segment is gone": (lambda f: (f / FILES[0]).unlink(), "journal 0:8 to 15"),
    "a checkpoint is gone": (lambda f: (f / SNAPSHOT).unlink(), "checkpoint of journal 0 at entry 15"),
    "two segments change places": (swap, "journal 0:0 to 7"),
    "one file more": (lambda f: shutil.copy(f / FILES[0], f / "journal/0/00000000000000000099.parquet"), "99.parquet"),
    "a byte of the manifest's beginning": (lambda f: changed(f / NAME, 20), f"{NAME}:1"),
    "a line of the manifest is gone": (rewritten(lambda found: found[:4] + found[5:]), f"{NAME}:5"),
    "a line of the manifest twice": (rewritten(lambda found: [*found[:4], found[3], *found[4:]]), f"{NAME}:5"),
    "two lines change places": (rewritten(lambda found: [*found[:4], found[5], found[4], *found[6:]]), f"{NAME}:5"),
    "a line is cut": (rewritten(lambda found: [*found[:-1], found[-1][:-9]]), "tail is lost"),
    "the last lines are gone": (rewritten(lambda found: found[:-2]), "tail is lost"),
    "a hash is forged": (forged("segment", "sha256", lambda old: old[::-1]), "was changed: its sha256"),
    "a content is forged": (forged("segment", "content", lambda old: old[::-1]), "records differ from those archived"),
    "an offset is forged": (forged("segment", "first", lambda old: old - 1), "must continue at"),
    "a digest is forged": (forged("checkpoint", "digest", lambda old: old[::-1]), "does not match its manifest entry"),
    "a checkpoint's place is forged": (forged("checkpoint", "offset", lambda old: old - 1), "must be at"),
    "a file's name leads elsewhere": (forged("segment", "file", lambda old: f"../{old}"), "file must be"),
}


@pytest.mark.parametrize(("tamper", "named"), TAMPERED.values(), ids=TAMPERED)
def test_a_spoiled_archive_is_found_and_the_place_is_named(copy, tamper, named):
    tamper(copy)
    found = check(copy)
    assert found.findings
    assert named in " / ".join(found.findings)
    done = CliRunner().invoke(cli, ["journal", "check", str(copy), "--processes", "1"])
    assert (done.exit_code, named in done.output, "NOT intact" in done.output) == (4, True, True)


@pytest.mark.parametrize("place", range(0, 2_000, 53))
def test_any_byte_of_the_manifest_counts(copy, place):
    changed(copy / NAME, place)
    assert check(copy, fold=False).findings


def test_a_shortened_archive_is_known_by_a_head_that_was_noted(copy):
    head = Manifest(copy).head
    kept = lines(copy)
    (copy / NAME).write_bytes(b"".join(kept[:-3]))
    for each in kept[-3:]:
        (copy / orjson.loads(each)["file"]).unlink()
    assert check(copy).findings == [], "as it stands nothing is wrong with it"
    assert check(copy, head=head).findings == [f"no line of the manifest has the hash {head}"]


def state_of_another(folder):
    """Put a checkpoint in place that is whole in itself, hashes, digest, chain and all, but not the journal's."""
    from streams.archives.files import checkpoint_file  # noqa: PLC0415 (next to its one use)
    from streams.processing.checkpoint import digest  # noqa: PLC0415

    true = Archive(folder).checkpoint(0, 15)
    records = dict(true.records)
    key = next(each for each in records if each[0] == "books")
    records[key] = records[key].replace(b"100000.0", b"100001.0", 1)
    assert records != true.records
    value = checkpoint_file(true._replace(records=records, digest=digest(records)))
    (folder / SNAPSHOT).write_bytes(value)
    forged_digest, forged_hash = f"{digest(records):064x}", hashlib.sha256(value).hexdigest()

    fields = read_lines(folder)
    (place,) = [each for each in fields if each.get("file") == SNAPSHOT]
    place |= {"digest": forged_digest, "sha256": forged_hash}
    chained(folder, fields)


def test_a_checkpoint_that_is_whole_but_not_the_journals_is_found_by_the_fold(copy):
    state_of_another(copy)
    assert check(copy, fold=False).findings == []
    (finding,) = check(copy).findings
    assert "of journal 0 at entry 15: digest differs from the replayed state" in finding or re.match(
        r"p\d sequence \d+, journal 0:(1[6-9]|2\d), allocations 0:\d+: bytes differ", finding
    ), finding
