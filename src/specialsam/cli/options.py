"""Options that commands share, and settings from a YAML file and KEY=VALUE pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
Base = Annotated[str | None, typer.Option(help="which zoo model a checkpoint file belongs to")]
Store = Annotated[Path | None, typer.Option(help="embedding store [default: OUT/embeddings]")]
Limit = Annotated[int | None, typer.Option(help="use a stable random subset of this many labelled images", min=1)]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


def read_settings(config: Path | None, sets: list[str] | None) -> dict[str, Any]:
    """Nested settings from a YAML file and KEY.KEY=VALUE options (values are YAML too)."""
    import yaml

    found: dict[str, Any] = {}
    if config is not None:
        try:
            found = yaml.safe_load(config.read_text()) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UsageError(f"expected a readable YAML file for --config, got {config} ({error})") from error
        if not isinstance(found, dict):
            raise UsageError(f"expected settings by name in {config}, got {type(found).__name__}")
    for text in sets or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"expected --set NAME=VALUE, got {text!r}")
        place = found
        *path, last = name.split(".")
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise UsageError(f"--set {name}: {part} is a value, not a group of settings")
        try:
            place[last] = _scalar(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise UsageError(f"--set {name}: expected a YAML value, got {value!r}") from error
    return found


def _scalar(value: Any) -> Any:
    """YAML reads 1e-5 as text; people mean a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
