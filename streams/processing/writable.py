"""Checks directories before work starts, so that one that cannot be written gives a one-line error."""

import tempfile
from pathlib import Path

from schemas.errors import ConfigurationException
from streams.processing.private_files import private_folder


def writable_folder(folder: Path, place: str, key: str) -> None:
    """Create a directory for its owner alone and check that files can be written to it; errors name `place` and `key`.

    Raises:
        ConfigurationException: it cannot be created or written to.
    """
    try:
        private_folder(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"himari")
    except OSError as error:
        raise unwritable(folder, place, key, error) from error


def unwritable(path: Path | str, place: str, key: str, error: OSError) -> ConfigurationException:
    """Return the error for a path that cannot be written."""
    return ConfigurationException(place, key, f"must be writable, {path}: {error.strerror or error}")
