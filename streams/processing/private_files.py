"""Folders and files for their owner alone: created with 0700 and 0600, whatever the umask allows others.

What exists keeps its mode: somebody may have opened it on purpose.
"""

import os
import stat
from pathlib import Path
from typing import Final

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600


def private_folder(folder: Path) -> None:
    """Create a folder and its missing parents."""
    if not folder.parent.exists():
        private_folder(folder.parent)
    folder.mkdir(FOLDER_MODE, exist_ok=True)


def private_opener(path: str, flags: int) -> int:
    """Open a file for `open(…, opener=…)`, which creates it if it is missing."""
    return os.open(path, flags, FILE_MODE)


def fresh_file(path: Path) -> None:
    """Create an empty file; one that an interrupted run left is replaced, and a link is not followed."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))


def replace(temporary: Path, path: Path) -> None:
    """Move a finished file to its place; the one that it replaces passes on its mode."""
    if path.is_file():
        temporary.chmod(stat.S_IMODE(path.stat().st_mode))
    temporary.replace(path)
