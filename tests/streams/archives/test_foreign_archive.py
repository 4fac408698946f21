"""An archive from somebody else: whatever its files hold is a finding and exit 4, whoever chained the manifest."""

import hashlib
import shutil

import orjson
import pyarrow as pa
import pytest
from archived_day import archived, chained, read_lines
from click.testing import CliRunner
from pyarrow import parquet

from schemas.errors import SizingError
from streams.archives import files
from streams.archives.archive import Archive
from streams.archives.files import META, checkpoint_file, content, read_records, records_file
from streams.archives.manifest import NAME
from streams.cli import cli
from streams.processing.checkpoint import digest

JOURNAL, ALLOCATIONS = "journal/0/00000000000000000008.parquet", "allocations/0/00000000000000000003.parquet"
SNAPSHOT = "checkpoints/0/00000000000000000015.parquet"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    archived(folder, rest=True)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "archive")
    return tmp_path / "archive"


def placed(folder, name, value, **more):
    """Put a file in the place of another, with the hashes of the manifest right."""
    (folder / name).write_bytes(value)
    fields = read_lines(folder)
    (line,) = [each for each in fields if each.get("file") == name]
    line |= {"sha256": hashlib.sha256(value).hexdigest(), **more}
    chained(folder, fields)


def packed(table):
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def found_by_the_command(folder, *more):
    """Return the findings of `journal check`, which ends with exit code 4 and no traceback."""
    done = CliRunner().invoke(cli, ["journal", "check", str(folder), "--processes", "1", *more])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 4, done.output
    *findings, last = done.stdout.splitlines()
    assert last.startswith("NOT intact")
    assert "Traceback" not in done.output
    return findings


# -- the manifest ------------------------------------------------------------------------------------------------------
GARBAGE = {
    "nothing": (b"", "does not end with a complete line"),
    "bytes": (bytes(range(256)) + b"\n", f"{NAME}:1 is not a valid manifest line"),
    "a list": (b"[]\n", f"{NAME}:1 is not a valid manifest line"),
    "brackets": (b"[" * 100_000 + b"\n", f"{NAME}:1 is not a valid manifest line"),
}


@pytest.mark.parametrize(("value", "rule"), GARBAGE.values(), ids=GARBAGE)
def test_a_manifest_of_garbage_is_a_finding(copy, value, rule):
    (copy / NAME).write_bytes(value)
    (finding,) = found_by_the_command(copy)
    assert rule in finding


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (0, "partitions must be 1 to 1000, was 0"),
        (-1, "partitions must be 1 to 1000, was -1"),
        (1_001, "partitions must be 1 to 1000, was 1001"),
        (10**18, "partitions must be 1 to 1000, was 1000000000000000000"),
        ("12", "partitions must be a whole number, was '12'"),
        (1.5, "partitions must be a whole number, was 1.5"),
        (True, "partitions must be a whole number, was true"),
        (None, "partitions must be a whole number, was null"),
    ],
)
def test_partitions_are_as_many_as_the_settings_allow(copy, value, rule):
    first, *others = read_lines(copy)
    chained(copy, [{**first, "partitions": value}, *others])
    assert found_by_the_command(copy) == [f"{NAME}:1: {rule}"]


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("topic", "../../etc", "topic must be journal or allocations, was ../../etc"),
        ("topic", 7, "topic must be a text, was 7"),
        ("partition", 1, "partition must be 0 to 0, was 1"),
        ("partition", -1, "partition must be 0 to 0, was -1"),
        ("partition", [0], "partition must be a whole number, was [0]"),
        ("last", "15", "last must be a whole number, was '15'"),
        ("sha256", None, "sha256 must be a text, was null"),
    ],
)
def test_a_field_of_a_line_is_what_an_archive_writes(copy, field, value, rule):
    fields = read_lines(copy)
    place = next(n for n, each in enumerate(fields) if each.get("file") == JOURNAL)
    fields[place][field] = value
    chained(copy, fields)
    assert found_by_the_command(copy) == [f"{NAME}:{place + 1}: {rule}"]


def test_as_many_records_as_a_line_claims_are_not_counted_up(copy):
    fields = read_lines(copy)
    fields[-2]["last"] = 2**62
    assert fields[-2]["topic"] == "journal"
    fields[-1] |= {"offset": 2**62, "file": f"checkpoints/0/{2**62:020}.parquet"}
    shutil.move(copy / read_lines(copy)[-1]["file"], copy / fields[-1]["file"])
    chained(copy, fields)
    segment, _ = found_by_the_command(copy)
    assert "is not a file of records: it must have 46116860184" in segment


# -- files -------------------------------------------------------------------------------------------------------------
def like_records(**columns):
    """Return a file of eight records with other columns."""
    header = pa.struct([("name", pa.string()), ("value", pa.binary())])
    own = {
        "offset": pa.array(range(8, 16), pa.int64()),
        "timestamp_ms": pa.array(range(8), pa.int64()),
        "key": pa.nulls(8, pa.binary()),
        "value": pa.nulls(8, pa.binary()),
        "headers": pa.array([[]] * 8, pa.list_(header)),
    }
    return packed(pa.table(own | columns))


HEADERS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))
NOT_TEXT = pa.StructArray.from_arrays(
    [pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers()), pa.array([b""])], ["name", "value"]
)
RECORDS = {
    "nothing": (b"", ""),
    "garbage": (b"no Parquet" * 100, "Parquet magic bytes not found"),
    "a cut file": (like_records()[:-40], ""),
    "a broken footer": (b"PAR1" + bytes(64) + b"\xff\xff\xff\x7fPAR1", ""),
    "a foreign file": (
        packed(pa.table({"price": [1.0]})),
        "its columns must be offset, timestamp_ms, key, value, heade",
    ),
    "texts for offsets": (like_records(offset=["8"] * 8), "its columns must be offset"),
    "no offsets": (like_records(offset=pa.nulls(8, pa.int64())), "offset, timestamp and headers must not be null"),
    "no headers": (like_records(headers=pa.nulls(8, HEADERS)), "offset, timestamp and headers must not be null"),
    "a header of nothing": (
        like_records(headers=pa.array([[None]] * 8, HEADERS)),
        "offset, timestamp and headers must not be null",
    ),
    "a header that is no text": (
        like_records(headers=pa.ListArray.from_arrays(pa.array([0, 1] + [1] * 7, pa.int32()), NOT_TEXT)),
        "",
    ),
    "no rows": (
        records_file([]),
        "it must have 8 rows, has 0",
    ),
}


@pytest.mark.parametrize(("value", "rule"), RECORDS.values(), ids=RECORDS)
def test_a_segment_that_is_no_file_of_records_is_a_finding(copy, value, rule):
    placed(copy, JOURNAL, value)
    (finding,) = found_by_the_command(copy)
    assert finding.startswith(f"{JOURNAL}, journal 0:8 to 15, is not a file of records: {rule}")


def state(folder, **changes):
    """Return a checkpoint of the archive with other contents, and its hashes for the manifest."""
    true = Archive(folder).checkpoint(0, 15)
    changed = true._replace(**changes)
    changed = changed._replace(digest=digest(changed.records))
    return checkpoint_file(changed), f"{changed.digest:064x}"


def stated(value):
    return packed(
        pa.table({"table": [], "key": [], "value": []}, files._checkpoint_schema().with_metadata({META: value}))
    )


WHOLE = {"digest": "0", "entry": "", "meta": {"now_ns": 1}, "offset": 15, "outputs": 3}
CHECKPOINTS = {
    "garbage": (b"no Parquet" * 100, "Parquet magic bytes not found"),
    "a file of records": (records_file([]), "its columns must be table, key, value"),
    "no metadata": (packed(pa.table({"table": [], "key": [], "value": []}, files._checkpoint_schema())), ""),
    "metadata that is no JSON": (stated(b"{"), ""),
    "a list": (stated(b"[]"), ""),
    "a digest that is no number": (stated(orjson.dumps({**WHOLE, "digest": "zz"})), "invalid literal for int()"),
    "no time": (stated(orjson.dumps({**WHOLE, "meta": {"now_ns": "now"}})), "its metadata must have now_ns"),
    "no state": (stated(orjson.dumps({**WHOLE, "meta": None})), "its metadata must have now_ns"),
}


@pytest.mark.parametrize(("value", "rule"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_checkpoint_that_is_no_file_of_one_is_a_finding(copy, value, rule):
    placed(copy, SNAPSHOT, value)
    (finding,) = found_by_the_command(copy)
    name = f"{SNAPSHOT}, the checkpoint of journal 0 at entry 15,"
    assert finding.startswith(f"{name} is not a file of a checkpoint: {rule}")


STATES = {
    "an unknown table": {("no such table", b'["main"]'): b"{}"},
    "a key that is no key": {("books", b"\xff"): b"{}"},
    "a record that is none": {("books", b'["main"]'): b"[1, 2"},
}


@pytest.mark.parametrize("records", STATES.values(), ids=STATES)
def test_a_checkpoint_of_a_state_that_cannot_be_is_found_by_the_replay(copy, records):
    value, stated_digest = state(copy, records=records)
    placed(copy, SNAPSHOT, value, digest=stated_digest)
    (finding,) = found_by_the_command(copy)
    assert finding.startswith("the checkpoint of journal 0 at entry 15 cannot be read: ")


def test_metadata_of_another_kind_are_found_by_the_replay(copy):
    now_ns = Archive(copy).checkpoint(0, 15).now_ns
    value, stated_digest = state(copy, meta={"now_ns": now_ns})
    placed(copy, SNAPSHOT, value, digest=stated_digest)
    (finding,) = found_by_the_command(copy)
    assert finding.startswith("the checkpoint of journal 0 at entry 15 cannot be read: TypeError: ")


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"[]", b"7", b"{}", b'{"kind": []}', b'{"kind": "signal"}'])
@pytest.mark.parametrize(("file", "rows"), [(JOURNAL, 8), (ALLOCATIONS, None)])
def test_records_of_garbage_are_found_by_the_replay(copy, file, rows, value):
    (line,) = [each for each in read_lines(copy) if each.get("file") == file]
    records = read_records(copy / file, "", rows or line["last"] - line["first"] + 1)
    records[1] = records[1]._replace(value=value)
    placed(copy, file, records_file(records), content=content(records))
    (finding,) = found_by_the_command(copy)
    assert "journal 0:9 cannot be folded" in finding or f"allocations 0:{line['first'] + 1}" in finding, finding


# -- size --------------------------------------------------------------------------------------------------------------
def test_a_file_that_unpacks_to_more_than_the_limit_is_a_finding_before_it_is_unpacked(copy, monkeypatch):
    rows = 4_096
    columns = {"table": ["books"] * rows, "key": [b"k"] * rows, "value": [bytes(2**14)] * rows}
    bomb = packed(pa.table(columns, files._checkpoint_schema().with_metadata({META: b"{}"})))
    assert len(bomb) < 2**16
    monkeypatch.setattr(files, "BYTES_MAX", 2**24)
    placed(copy, SNAPSHOT, bomb)
    ordinary = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(ordinary)
    pa.set_memory_pool(counted)
    try:
        (finding,) = found_by_the_command(copy)
    finally:
        pa.set_memory_pool(ordinary)
    assert "it unpacks to more than 16,777,216 bytes" in finding
    assert counted.max_memory() < rows * 2**14 // 2, "it was not unpacked whole"


def test_what_could_not_be_read_again_is_not_written(monkeypatch):
    monkeypatch.setattr(files, "BYTES_MAX", 1_000)
    record = files.ArchivedRecord(0, 0, None, bytes(2_000))
    with pytest.raises(SizingError, match=r"at most 1,000 bytes, has 2,\d+: use smaller --entries"):
        records_file([record])
