"""ZIP files whose bytes depend on their members alone: sorted by name, without times, users and machines."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

__all__ = ["write_zip"]

EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""Modification time of every member: the earliest that ZIP can store."""
UNIX: Final = 3
MODE: Final = 0o644 << 16


def write_zip(file: Path | IO[bytes], members: Mapping[str, bytes], compression: int) -> None:
    """Write a ZIP; `compression` is `zipfile.ZIP_STORED` or `zipfile.ZIP_DEFLATED`."""
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, value in sorted(members.items()):
            place = zipfile.ZipInfo(name, EPOCH)
            place.compress_type, place.create_system, place.external_attr = compression, UNIX, MODE
            archive.writestr(place, value)
