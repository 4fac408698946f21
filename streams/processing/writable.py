"""Folders that are to be written to: looked at before anything begins, and one line if they cannot be."""

import tempfile
from pathlib import Path

from schemas.errors import ConfigurationException


def writable_folder(folder: Path, place: str, key: str) -> None:
    """Make a folder, and see that files can be put there; `place` and `key` are what an error names.

    Raises:
        ConfigurationException: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"himari")
    except OSError as error:
        raise unwritable(folder, place, key, error) from error


def unwritable(path: Path | str, place: str, key: str, error: OSError) -> ConfigurationException:
    """Return what is said of a path that cannot be written."""
    return ConfigurationException(place, key, f"must be writable, {path}: {error.strerror or error}")
