"""A strict subset of YAML: plain values, no repeated keys, and the line of each key.

Scalars follow YAML 1.2: `off`, `1:30` and `0777` are not a boolean, a time and an octal, and `1e-8` is a number.
Aliases and tags are refused.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

from schemas.errors import ConfigurationException

BYTES_MAX = 256 * 1024
_SCALARS = {
    "tag:yaml.org,2002:null": (re.compile(r"^(?:null|Null|NULL|~|)$"), ["n", "N", "~", ""]),
    "tag:yaml.org,2002:bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    "tag:yaml.org,2002:int": (re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")),
    "tag:yaml.org,2002:float": (
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
        list("-+.0123456789"),
    ),
}


class YamlText(NamedTuple):
    """The tree of a file, and the line of each path, counted from 1."""

    tree: dict[str, Any]
    lines: dict[tuple[str, ...], int]


def read(raw: bytes, file: str) -> YamlText:
    """Return the tree of a file; an empty file is an empty tree.

    Raises:
        ConfigurationException: with the line if it is known.
    """
    root = _node(_decoded(raw, file), file)
    lines: dict[tuple[str, ...], int] = {}
    tree = {} if root is None else _plain(root, (), file, lines)
    if not isinstance(tree, dict):
        raise ConfigurationException(file, "", f"must be a mapping of sections, was {tree!r:.60}")
    return YamlText(tree, lines)


def scalar(text: str, file: str, key: str) -> Any:
    """Return the value of an environment variable, parsed like a value in the file.

    Raises:
        ConfigurationException: it is not valid YAML.
    """
    try:
        root = _node(text, file)
        return None if root is None else _plain(root, (key,), file, {})
    except ConfigurationException as error:
        raise ConfigurationException(file, key, error.rule) from error


class _Loader(yaml.SafeLoader):
    """A SafeLoader with the scalars of YAML 1.2, without aliases and tags."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML looks for a plain class attribute

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases are refused", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal("tags are refused; quote a text that begins with !", event)
        return super().compose_node(parent, index)


for _tag, (_pattern, _starts) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, _starts)


def _refusal(problem: str, event: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _decoded(raw: bytes, file: str) -> str:
    if len(raw) > BYTES_MAX:
        raise ConfigurationException(file, "", f"must have at most {BYTES_MAX} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationException(file, "", f"must be UTF-8, was not at byte {error.start}") from error


def _node(text: str, file: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigurationException(
            file, "", f"must be YAML: {error.problem}", None if mark is None else mark.line + 1
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationException(file, "", f"must be YAML: {str(error) or 'too deep'}"[:200]) from error


def _plain(node: yaml.Node, path: tuple[str, ...], file: str, lines: dict[tuple[str, ...], int]) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return _value(node, path, file)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, str(index)), file, lines) for index, item in enumerate(node.value)]
    tree: dict[str, Any] = {}
    for name_node, value in node.value:
        line = name_node.start_mark.line + 1
        if not isinstance(name_node, yaml.ScalarNode):
            raise ConfigurationException(file, ".".join(path), "keys must be strings", line)
        name = name_node.value
        inner = (*path, name)
        if name in tree:
            raise ConfigurationException(file, ".".join(inner), "must be given once, was given twice", line)
        lines[inner] = line
        tree[name] = _plain(value, inner, file, lines)
    return tree


def _value(node: yaml.ScalarNode, path: tuple[str, ...], file: str) -> Any:
    kind, text = node.tag.rpartition(":")[2], node.value
    try:
        return _CONSTRUCT[kind](text)
    except ValueError as error:  # more digits than Python's limit for int()
        line = node.start_mark.line + 1
        raise ConfigurationException(file, ".".join(path), f"must be a number, was {text[:60]}", line) from error


_CONSTRUCT: dict[str, Callable[[str], Any]] = {
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": float,
    "str": str,
}
