"""Load settings from defaults, file, environment and command line (the later wins), and record the origin of each."""

import difflib
import os
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args

from pydantic import BaseModel, ValidationError

from config.diff import paths
from config.never import never_acting
from config.security import IN_THE_CLEAR, SECRETS, SecuritySettings
from config.settings import Settings
from config.strict_yaml import BYTES_MAX, read, scalar
from schemas.errors import ConfigurationException
from schemas.rules import first, shown

DEFAULT_FILE = Path(__file__).parent / "layer3_config.yaml"
"""Every key with its default and a comment."""
PREFIX = "HIMARI__"
COMMAND_LINE = "command line"


class Loaded(NamedTuple):
    """Settings, and the origin of each dotted key: default, file, "env NAME" or command line."""

    settings: Settings
    origin: dict[str, str]
    in_file: frozenset[str] = frozenset()
    """Dotted keys that have a value in the file, even if it is overridden; empty sections are left out."""


class _Given(NamedTuple):
    """One value from a source other than the defaults, not yet validated."""

    path: tuple[str, ...]
    value: Any
    origin: str
    place: str
    """Place named in errors: the file, the variable, or the command line."""
    line: int | None = None


def load(
    path: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Loaded:
    """Return the settings; precedence is default < file < environment `HIMARI__SECTION__KEY` < overrides.

    `env` None means no variables (pass `os.environ` for those of the process); `overrides` maps dotted keys to plain
    values.

    Raises:
        ConfigurationException: names file, key, rule and value; an invalid file changes nothing.
    """
    if path is None:
        return load_bytes(b"", "", env, overrides)
    return load_bytes(read_file(path), os.fspath(path), env, overrides)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a settings file, at most one byte more than the allowed size.

    Raises:
        ConfigurationException: the file does not exist or cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return file.read(BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationException(os.fspath(path), "", f"must be a readable file: {error.strerror}") from error


def load_bytes(
    raw: bytes, file: str, env: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> Loaded:
    """Return the settings of a file that is already read; otherwise like `load`."""
    of_file = _of_file(raw, file)
    given = [*of_file, *_of_environment(env or {}), *_of_overrides(overrides or {})]
    tree: dict[str, Any] = {}
    for one in given:
        _check_key(one)
        _put(tree, one.path, one.value)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        _refuse(error, given)
    for key, rule in never_acting(settings):
        nearest = _nearest(given, tuple(key.split(".")))
        raise ConfigurationException(nearest.place, key, rule, nearest.line)
    origins = {one.path: one.origin for one in given}
    origin = {".".join(path): _origin(path, origins) for path, _ in paths(settings.model_dump())}
    return Loaded(settings, origin, frozenset(".".join(one.path) for one in of_file if not _is_section(one.path)))


# -- sources -------------------------------------------------------------------------------------------------------
def _of_file(raw: bytes, file: str) -> list[_Given]:
    text = read(raw, file)
    return [_Given(path, value, "file", file, text.lines.get(path)) for path, value in paths(text.tree)]


def _of_environment(env: Mapping[str, str]) -> list[_Given]:
    given = []
    for name in sorted(env):
        if name.startswith(PREFIX):
            path = _spelled(name.removeprefix(PREFIX), "__")
            place = f"environment {name}"
            given.append(_Given(path, scalar(env[name], place, ".".join(path)), f"env {name}", place))
    return given


def _of_overrides(overrides: Mapping[str, Any]) -> list[_Given]:
    return [_Given(_spelled(key, "."), value, COMMAND_LINE, COMMAND_LINE) for key, value in overrides.items()]


def _spelled(key: str, separator: str) -> tuple[str, ...]:
    """Return the path of a key: setting names in lower case; a symbol or alias unchanged, separators included."""
    model: type[BaseModel] | None = Settings
    path: list[str] = []
    rest = key
    while rest and model is not None:
        name, _, rest = rest.partition(separator)
        path.append(name.lower())
        model = _section(model, path[-1])
    return (*path, rest) if rest else tuple(path)


# -- the shape of the tree -----------------------------------------------------------------------------------------
def _section(model: type[BaseModel] | None, name: str) -> type[BaseModel] | None:
    """Return the model of a section; None if the name is not a section."""
    if model is None or name not in model.model_fields:
        return None
    annotation = model.model_fields[name].annotation
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _is_section(path: tuple[str, ...]) -> bool:
    """Return whether a path names a section rather than a setting."""
    model: type[BaseModel] | None = Settings
    for name in path:
        model = _section(model, name)
    return model is not None


def _check_key(given: _Given) -> None:
    """Refuse an unknown key, suggesting the closest known one, and a plain value in place of a section."""
    model: type[BaseModel] | None = Settings
    for depth, name in enumerate(given.path):
        if model is None:
            return
        if name not in model.model_fields:
            if model is SecuritySettings and name.lower() in SECRETS:
                rule = IN_THE_CLEAR.format(name=name.lower())
                raise ConfigurationException(given.place, ".".join(given.path[: depth + 1]), rule, given.line)
            near = difflib.get_close_matches(name.lower(), model.model_fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(model.model_fields))}"
            key = ".".join(given.path[: depth + 1])
            raise ConfigurationException(given.place, key, f"is not a setting; {hint}", given.line)
        model = _section(model, name)
    if model is not None and given.value not in (None, {}):
        was = "a value that is not shown" if model is SecuritySettings else shown(given.value)
        rule = f"must be a section of settings, was {was}"
        raise ConfigurationException(given.place, ".".join(given.path), rule, given.line)


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        inner = tree.get(name)
        if not isinstance(inner, dict):
            inner = tree[name] = {}
        tree = inner
    tree[path[-1]] = value


# -- errors and origins --------------------------------------------------------------------------------------------
def _refuse(error: ValidationError, given: list[_Given]) -> NoReturn:
    """Raise an error that names the source of the value nearest to the broken rule; of several, the last."""
    fault = first(error)
    location = tuple(map(str, error.errors(include_url=False)[0]["loc"]))
    nearest = _nearest(given, location)
    raise ConfigurationException(nearest.place, fault.field, fault.rule, nearest.line) from None


def _nearest(given: list[_Given], location: tuple[str, ...]) -> _Given:
    """Return the given value nearest to a location in the tree; the last one of several."""
    nearest: _Given = max(reversed(given), key=lambda one: _shared(one.path, location))
    return nearest


def _shared(path: tuple[str, ...], location: tuple[str, ...]) -> int:
    """Return the length of the common prefix of two paths."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(path, location, strict=False)))


def _origin(path: tuple[str, ...], origins: Mapping[tuple[str, ...], str]) -> str:
    """Return the origin of a leaf; its section may have been given as a single value, {} or null."""
    upwards = (path[:length] for length in range(len(path), 0, -1))
    return next((origins[place] for place in upwards if place in origins), "default")
