"""A folder or a file that cannot be written to is one line with its key, before anything begins."""

import asyncio
import os

import pytest

from config.settings import Settings
from schemas.errors import ConfigurationException
from streams.archives.archiver import alone
from streams.kafka.login import connect
from streams.processing.writable import writable_folder
from streams.reports.export import whole
from streams.worker.worker import prepare


def test_a_folder_is_made_and_left_empty(tmp_path):
    writable_folder(tmp_path / "a/b", "settings", "kafka.data_dir")
    assert list((tmp_path / "a/b").iterdir()) == []


@pytest.fixture
def closed(tmp_path):
    """A path under a file: nobody, root included, can make it a folder."""
    (tmp_path / "file").write_text("here")
    return tmp_path / "file" / "state"


def test_a_worker_whose_data_dir_cannot_be_written_says_so_before_it_looks_for_a_broker(closed):
    settings = Settings.model_validate({"kafka": {"data_dir": str(closed), "bootstrap_servers": "127.0.0.1:9"}})
    with pytest.raises(ConfigurationException) as refused:
        asyncio.run(prepare(settings, connect(settings), lambda: 0))
    assert str(refused.value) == f"settings: kafka.data_dir: must be writable, {closed}: Not a directory"
    assert refused.value.exit_code == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationException, match="Permission denied"):
        writable_folder(tmp_path, "settings", "kafka.data_dir")


def test_an_archive_that_cannot_be_written_is_named(closed):
    rule = r"command line: FOLDER: must be writable, .*: Not a directory"
    with pytest.raises(ConfigurationException, match=rule), alone(closed):
        pytest.fail("nothing can be archived there")


def test_an_export_that_cannot_be_written_is_named(closed):
    refusal = pytest.raises(ConfigurationException, match="cannot be written: Not a directory")
    with refusal as refused, whole(closed) as place:
        place.write_text("rows")
    assert refused.value.exit_code == 5
