"""YAML and JSON that others wrote, and files that are none: read in bounded time, or a ValueError of one line.

Oracles: PyYAML and json for what is good, and what is bad was written by hand.
"""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.core.documents import MOST_BYTES, document, parse_json, parse_yaml
from specialsam.core.errors import DataError
from specialsam.core.files import open_regular

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
@settings(max_examples=100, deadline=None)
def test_good_documents_are_read_as_ever(value: object) -> None:
    """Oracle: what PyYAML and json wrote themselves; YAML without references, which it writes for repeated lists."""

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    assert parse_yaml(yaml.dump(value, Dumper=Plain)) == value
    assert parse_json(json.dumps(value)) == value


@given(
    st.text(st.characters(codec="utf-8"), max_size=60) | st.text("[]{},:-&*!<>|'\"\\n ?#%@0123456789abe._", max_size=60)
)
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_value_or_one_line(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        try:
            parse(text)
            said = "read"
        except ValueError as error:
            said = str(error)
        assert said
        assert "\n" not in said


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("{a: " * 40_000, "nested too deeply"),
        ("a: &x [1]\nb: *x", "found the reference *x"),
        ("a: &x [*x]", "found the reference *x"),
        ("a: &x {b: 1}\nc: {<<: *x}", "found the reference *x"),
        ("1" + ":59" * 60_000, "too many digits"),
        ("9" * 5000, "too many digits"),
        ("0x" + "f" * 5000, "too many digits"),
        ("!!bool maybe", "does not fit its type"),
        ("!!timestamp never", "does not fit its type"),
        ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("2001-99-99", "month"),
    ],
)
def test_what_yaml_should_not_hold(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_yaml(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "{", "", "nan"])
def test_what_json_should_not_hold(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        parse_json(text)


def test_documents_are_small_and_in_utf8() -> None:
    assert document(io.BytesIO("\N{EN DASH}".encode("utf-8-sig"))) == "\N{EN DASH}"
    assert len(document(io.BytesIO(b"x" * MOST_BYTES))) == MOST_BYTES
    with pytest.raises(ValueError, match="larger than 200 kB"):
        document(io.BytesIO(b"x" * (MOST_BYTES + 1)))
    with pytest.raises(ValueError, match="utf-8"):
        document(io.BytesIO(b"\xff"))


@pytest.mark.timeout(20)
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"
    os.mkfifo(tmp_path / "pipe")
    for place, kind in ((tmp_path / "pipe", "a named pipe"), (tmp_path, "a folder"), (Path("/dev/zero"), "a device")):
        with pytest.raises(DataError, match=f"expected a file, got {kind}"):
            open_regular(place)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing")
