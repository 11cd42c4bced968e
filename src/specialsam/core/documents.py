"""YAML and JSON that somebody else wrote: it takes bounded room whatever it holds, and its fault is a ValueError."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import yaml

MOST_BYTES = 200_000
"""A file of settings that is larger than this is none."""
LONGEST_NUMBER = 400
"""Characters of a number or a date in YAML."""
TOO_DEEP = "it is nested too deeply"
TEXT = "tag:yaml.org,2002:str"


def document(file: BinaryIO) -> str:
    """All text of an open file, in UTF-8. ValueError where it is no UTF-8, or too large (a device never ends)."""
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES / 1000:g} kB")
    return content.decode("utf-8-sig")


def parse_json(text: str) -> Any:
    """The value of a JSON text; NaN and Infinity pass, as Python writes them. ValueError for everything else."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def parse_yaml(text: str) -> Any:
    """The value of a YAML text of plain values; ValueError in one line for all that it should not hold.

    References (`*name`) are refused: nine lines of them stand for a billion values. So are numbers of a length that
    PyYAML takes minutes for.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (ArithmeticError, AttributeError, LookupError) as error:  # `!!bool maybe`, `!!timestamp never`
        raise ValueError(f"a value does not fit its type ({error})") from error


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"found the reference *{event.anchor}", event.start_mark)
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and node.tag != TEXT and len(node.value) > LONGEST_NUMBER:
            raise yaml.composer.ComposerError(None, None, "found a number of too many digits", node.start_mark)
        return node
