"""Candle files that are too large: one line, and no more memory than the limit needs."""

import gzip
import subprocess
import sys

import pytest

from schemas.errors import ConfigurationException
from streams.history import candle_table, candles

HOURLY = """\
timestamp,open,high,low,close,volume
1735689600,43000.0,43459.3,42994.3,43333.6,68.2
1735693200,43333.6,43336.4,42962.6,43050.6,48.8
"""
BOMB_UNPACKED = 4 * 2**30
DEMO = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))
from streams.cli import main
main()
"""
"""The command line, which may take 2 GiB of memory."""


def test_a_file_that_unpacks_to_gigabytes_is_one_line_and_no_more_memory_than_the_limit(tmp_path):
    path = tmp_path / "BTC-USD.csv.gz"
    member = gzip.compress(bytes(2**24))
    path.write_bytes(member * (BOMB_UNPACKED // 2**24))
    assert path.stat().st_size < 2**23
    done = subprocess.run([sys.executable, "-c", DEMO, "demo", str(path)], capture_output=True, text=True, check=False)
    rule = "must be a readable CSV or JSON file: it must have at most 268,435,456 bytes, unpacked"
    assert (done.returncode, done.stdout, done.stderr) == (5, "", f"himari: {path}: {rule}\n")


@pytest.mark.parametrize(("name", "pack"), [("BTC-USD.csv", bytes), ("BTC-USD.csv.gz", gzip.compress)])
def test_a_file_at_the_limit_is_read_and_one_byte_more_is_refused(tmp_path, monkeypatch, name, pack):
    value = HOURLY.encode()
    path = tmp_path / name
    path.write_bytes(pack(value))
    monkeypatch.setattr(candle_table, "BYTES_MAX", len(value))
    candles.read(path)
    monkeypatch.setattr(candle_table, "BYTES_MAX", len(value) - 1)
    with pytest.raises(ConfigurationException, match=f"it must have at most {len(value) - 1:,} bytes"):
        candles.read(path)


def test_a_row_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "BTC-USD.csv"
    path.write_text(HOURLY)
    rows = len(HOURLY.split())
    monkeypatch.setattr(candle_table, "ROWS_MAX", rows)
    candles.read(path)
    monkeypatch.setattr(candle_table, "ROWS_MAX", rows - 1)
    with pytest.raises(ConfigurationException, match=f"it must have at most {rows - 1} rows"):
        candles.read(path)


def test_a_parquet_file_is_named_as_such(tmp_path):
    path = tmp_path / "BTC-USD.parquet"
    path.write_bytes(b"PAR1\x15\x04")
    with pytest.raises(ConfigurationException, match="it is a Parquet file; write it as CSV"):
        candles.read(path)
