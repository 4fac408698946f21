"""`python -m schemas` writes every message's JSON Schema to schemas/json."""

from pathlib import Path

import orjson

from schemas.registry import MESSAGES, schema_of

FOLDER = Path(__file__).parent / "json"


def files() -> dict[Path, bytes]:
    """Return the content of every schema file, by path."""
    option = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return {FOLDER / f"{name}.schema.json": orjson.dumps(schema_of(name), option=option) for name in MESSAGES}


def write() -> None:
    """Write the schemas; delete those of messages that no longer exist."""
    FOLDER.mkdir(exist_ok=True)
    wanted = files()
    for stale in set(FOLDER.glob("*.schema.json")) - set(wanted):
        stale.unlink()
    for path, value in wanted.items():
        path.write_bytes(value)


if __name__ == "__main__":
    write()
