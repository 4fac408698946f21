"""`python -m schemas` writes every message's JSON Schema to schemas/json."""

from pathlib import Path

import orjson

from schemas.registry import MESSAGES, schema_of

FOLDER = Path(__file__).parent / "json"


def files() -> dict[Path, bytes]:
    """Return what the folder has to hold."""
    option = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return {FOLDER / f"{name}.schema.json": orjson.dumps(schema_of(name), option=option) for name in MESSAGES}


def write() -> None:
    """Write the schemas and remove those of messages that are gone."""
    FOLDER.mkdir(exist_ok=True)
    wanted = files()
    for stale in set(FOLDER.glob("*.schema.json")) - set(wanted):
        stale.unlink()
    for path, value in wanted.items():
        path.write_bytes(value)


if __name__ == "__main__":
    write()
