"""YAML as its version 1.2 means it, and nothing that can run code.

`1e-5` is a number, only `true` and `false` are booleans (`no`, `yes`, `on` are text), `010` is ten, `12:30` is text.
A key that stands twice, an unknown tag and a second document are errors. Strings are always written in double
quotes, so that no reader takes one for something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from typing import Any

import yaml

from vpgea.errors import UsageError

_PREFIX = "tag:yaml.org,2002:"
_SCALARS = {  # tag → (pattern of the core schema, first characters)
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


_LARGEST = 1_000_000  # characters and entries of a document once its anchors are written out
_MOST_DIGITS = 1000  # of an integer; Python neither reads nor writes much longer ones


class _Loader(yaml.SafeLoader):
    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        """The text, which has to be of the form of its tag, also where the tag is written out (`!!bool maybe`)."""
        text: str = super().construct_scalar(node)
        kind = node.tag.removeprefix(_PREFIX)
        if kind in _SCALARS and not re.fullmatch(_SCALARS[kind][0], text):
            raise yaml.constructor.ConstructorError(None, None, f"{text[:40]!r} is no {kind}", node.start_mark)
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise yaml.constructor.ConstructorError(None, None, *_first_repeated_key(self, node))
        return mapping


def _first_repeated_key(loader: _Loader, node: yaml.MappingNode) -> tuple[str, yaml.Mark]:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            return f"the key {key!r} stands twice", key_node.start_mark
        seen.add(key)
    raise AssertionError("a mapping that lost entries has a repeated key")


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if len(text) > _MOST_DIGITS:
        raise yaml.constructor.ConstructorError(None, None, "an integer of so many digits", node.start_mark)
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


_Loader.yaml_implicit_resolvers = {}  # forget those of YAML 1.1
_Loader.yaml_constructors = {  # nor any type that version 1.2 does not know: no set, timestamp, binary
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_PREFIX) in (*_SCALARS, "str", "seq", "map")
}
for _tag, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_PREFIX + _tag, re.compile(f"^(?:{_pattern})$"), [c.strip("\0") for c in _first])
_Loader.add_constructor(_PREFIX + "int", _construct_int)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(_PREFIX + "str", text, style='"'))


def parse(text: str, name: str) -> tuple[Any, dict[tuple[str, ...], int]]:
    """Read one plain YAML document; one that was read before is not taken apart again.

    Args:
        text: The document.
        name: Stands for the text in errors.

    Returns:
        Its value and, for every key path of its nested mappings, the line (from 1) where it stands.

    Raises:
        UsageError: The text is anything else.
    """
    try:
        value, lines = _parsed(text)
        return deepcopy(value), dict(lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise _not_yaml(where, error.problem or str(error)) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _not_yaml(name, " ".join(str(error).split())) from error


@lru_cache(maxsize=64)  # each phase of a run reads the same template, and each command on it the same configuration
def _parsed(text: str) -> tuple[Any, dict[tuple[str, ...], int]]:
    loader = _Loader(text)
    node = loader.get_single_node()
    if node is None:
        return None, {}
    _require_small(node)
    return loader.construct_document(node), dict(_lines(node, ()))


def _require_small(node: yaml.Node) -> None:
    """See that anchors do not make a document larger than any that is written out.

    Raises:
        ConstructorError: They do, or one of them holds itself.
    """
    sizes: dict[int, int] = {}  # of nodes that are looked through; 0 while they are

    def size(one: yaml.Node) -> int:
        if id(one) in sizes:
            if not sizes[id(one)]:
                raise yaml.constructor.ConstructorError(None, None, "an anchor holds itself", one.start_mark)
            return sizes[id(one)]
        sizes[id(one)] = 0
        if isinstance(one, yaml.MappingNode):
            total = 1 + sum(size(key) + size(value) for key, value in one.value)
        elif isinstance(one, yaml.SequenceNode):
            total = 1 + sum(map(size, one.value))
        else:
            total = 1 + len(one.value)
        if total > _LARGEST:
            raise yaml.constructor.ConstructorError(None, None, "its anchors make it too large", one.start_mark)
        sizes[id(one)] = total
        return total

    size(node)


def _lines(node: yaml.Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and len(path) < 8:  # deeper than any key; ends a self-reference too
                here = (*path, key.value)
                yield here, key.start_mark.line + 1
                yield from _lines(value, here)


def _not_yaml(where: str, why: str) -> UsageError:
    mend = "write plain YAML: spaces for indentation, each key once, no tags"
    return UsageError(f"{where}: not readable as YAML", why=why, mend=mend)


def scalar(value: Any) -> str:
    """One line of YAML for a plain value: null, bool, number, string, or a list or mapping of them."""
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("...\n").rstrip("\n")
