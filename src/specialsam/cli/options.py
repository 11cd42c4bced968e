"""Options that commands share, and settings from a YAML file and KEY=VALUE pairs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from specialsam.core.errors import UsageError

Source = Annotated[
    str,
    typer.Argument(help="a folder whose layout is recognised, or ADAPTER:PATH", metavar="SOURCE", show_default=False),
]
Model = Annotated[
    str,
    typer.Option("--model", "-m", help="zoo name, checkpoint file, transformers folder or hub id, specialist folder"),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="run folder [default: runs/NAME-MODEL]")]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file of settings; --set wins over it", show_default=False)
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", help="one setting, e.g. train.lr=1e-5 or train.loss=dice; repeatable", show_default=False
    ),
]
Base = Annotated[
    str | None,
    typer.Option(help="zoo model that a file is of (or medsam), or the model that a decoder or LoRA adapter is put on"),
]
TrustBase = Annotated[
    bool, typer.Option("--trust-base", help="fetch the hub model that a specialist's card names as its base")
]
Store = Annotated[Path | None, typer.Option(help="embedding store [default: OUT/embeddings]")]
Limit = Annotated[int | None, typer.Option(help="use a stable random subset of this many labelled images", min=1)]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda or mps")]
Backend = Annotated[
    str,
    typer.Option(
        help="how the encoder runs: torch, torch-bf16, compiled, compiled-bf16, openvino, openvino-bf16, onnxruntime; "
        "auto measures them on your images once and says what it chose"
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="ray: spread the work over a Ray cluster (RAY_ADDRESS, or one started here); -s cluster.gpus=0.5"
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


@contextmanager
def needing(command: str, extra: str, *packages: str) -> Iterator[None]:
    """Imports for which a command needs an extra; UsageError in one line where one of its packages is missing."""
    try:
        yield
    except ImportError as error:
        if error.name not in packages:
            raise
        raise UsageError(
            f"{command} needs the package {error.name}; install it: pip install 'specialsam[{extra}]'"
        ) from error


LEADING_ZERO = re.compile(r"0[0-9]+")
"""A number of a roll or an order as people write it, which YAML would read by eights."""


def read_settings(config: Path | None, sets: list[str] | None) -> dict[str, object]:
    """Nested settings from a YAML file and KEY.KEY=VALUE options (values are YAML too)."""
    from specialsam.core.documents import document, parse_yaml

    found: dict[str, object] = {}
    if config is not None:
        try:
            with config.open("rb") as file:
                found = parse_yaml(document(file)) or {}
        except (OSError, ValueError) as error:
            raise UsageError(f"expected a readable YAML file for --config, got {config} ({error})") from error
        if not isinstance(found, dict):
            raise UsageError(f"expected settings by name in {config}, got {type(found).__name__}")
    for text in sets or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"expected --set NAME=VALUE, got {text!r}")
        place: dict[str, object] = found
        *path, last = name.split(".")
        for part in path:
            below = place.setdefault(part, {})
            if not isinstance(below, dict):
                raise UsageError(f"--set {name}: {part} is a value, not a group of settings")
            place = below
        try:
            place[last] = value.strip() if LEADING_ZERO.fullmatch(value.strip()) else _scalar(parse_yaml(value))
        except ValueError as error:
            raise UsageError(f"--set {name}: expected a YAML value, got {value[:60]!r} ({error})") from error
    return found


def _scalar(value: object) -> object:
    """YAML reads 1e-5 as text; people mean a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
