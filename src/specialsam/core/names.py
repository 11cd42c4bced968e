"""Texts from other people's disks and files, made fit for a terminal, a table and a page."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with escapes for what no file in UTF-8 holds and no terminal should get.

    A byte of a file name that is no UTF-8 (Python keeps it as a surrogate) becomes `\xff`, any other lone surrogate
    `\ud800`, a control character or a line break `\n` or `\x1b`. All other text comes back as it is.
    """
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode("ascii")
