"""What is written belongs to its owner alone, whatever the umask; what exists keeps its mode."""

import os
import stat
import zipfile

import pytest
from archived_day import archived

from streams.evidence.zip_file import write_zip
from streams.processing.private_files import fresh_file, private_folder
from streams.processing.writable import writable_folder
from streams.reports.export import WeightRecord, csv_file, export_weight_history, parquet_file, whole


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct, autouse=True)
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_a_data_dir_and_the_folders_above_it_that_were_missing_are_private(tmp_path):
    tmp_path.chmod(0o755)
    writable_folder(tmp_path / "himari/state", "settings", "kafka.data_dir")
    assert (mode(tmp_path / "himari/state"), mode(tmp_path / "himari"), mode(tmp_path)) == (0o700, 0o700, 0o755)


def test_a_folder_that_exists_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o750)
    writable_folder(tmp_path, "settings", "kafka.data_dir")
    private_folder(tmp_path)
    assert mode(tmp_path) == 0o750


def test_everything_in_an_archive_is_private(tmp_path):
    archived(tmp_path / "archive", rest=True)
    places = [tmp_path / "archive", *(tmp_path / "archive").rglob("*")]
    assert {mode(place) for place in places if place.is_dir()} == {0o700}
    assert {mode(place) for place in places if place.is_file()} == {0o600}
    assert sum(place.is_file() for place in places) > 5


def test_an_archive_that_others_may_read_stays_so(tmp_path):
    archived(tmp_path, entries=8)
    (tmp_path / "manifest.jsonl").chmod(0o644)
    archived(tmp_path, entries=8, rest=True)
    assert mode(tmp_path / "manifest.jsonl") == 0o644


EXPORTS = {
    "csv": lambda path: export_weight_history(path, []),
    "rows": lambda path: csv_file(path, WeightRecord),
    "parquet": lambda path: parquet_file(path, WeightRecord),
}


@pytest.mark.parametrize("write", EXPORTS.values(), ids=EXPORTS)
def test_an_export_is_private_and_keeps_the_mode_that_it_was_given(tmp_path, write):
    def written():
        found = write(tmp_path / "export")
        if hasattr(found, "__enter__"):
            with found:
                pass

    written()
    assert mode(tmp_path / "export") == 0o600
    (tmp_path / "export").chmod(0o640)
    written()
    assert mode(tmp_path / "export") == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["export"]


def test_a_bundle_is_private(tmp_path):
    with whole(tmp_path / "proof.zip") as place:
        assert mode(place) == 0o600, "from its beginning"
        write_zip(place, {"entry.json": b"{}"}, zipfile.ZIP_STORED)
    assert mode(tmp_path / "proof.zip") == 0o600


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("whole")
    (tmp_path / "temporary").symlink_to(tmp_path / "victim")
    fresh_file(tmp_path / "temporary")
    assert ((tmp_path / "victim").read_text(), (tmp_path / "temporary").is_symlink()) == ("whole", False)
