"""The command line: the same nouns as the code, one line for every error, no heavy import before it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from specialsam import __version__
from specialsam.console import say
from specialsam.core.errors import UsageError

DONE, FAILED, WRONG_USE = 0, 1, 2

app = typer.Typer(
    name="specialsam",
    help="Turn the Segment Anything Model into a specialist for a narrow domain, and tell the truth about whether it "
    "was worth it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
models_app = typer.Typer(help="The models that specialsam knows: list, show, fetch, verify.", no_args_is_help=True)
synth_app = typer.Typer(help="Generated images with exact masks.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(synth_app, name="synth")

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
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


def _version(value: bool) -> None:
    if value:
        say(f"specialsam {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    pass


def _settings(config: Path | None, sets: list[str] | None) -> dict[str, Any]:
    """Nested settings from a YAML file and KEY.KEY=VALUE options (values are YAML too)."""
    import yaml

    found: dict[str, Any] = {}
    if config is not None:
        try:
            found = yaml.safe_load(config.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(f"expected a readable YAML file for --config, got {config} ({error})") from error
        if not isinstance(found, dict):
            raise UsageError(f"expected settings by name in {config}, got {type(found).__name__}")
    for text in sets or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"expected --set NAME=VALUE, got {text!r}")
        place = found
        *path, last = name.split(".")
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise UsageError(f"--set {name}: {part} is a value, not a group of settings")
        place[last] = _scalar(yaml.safe_load(value))
    return found


def _scalar(value: Any) -> Any:
    """YAML reads 1e-5 as text; people mean a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option("--out", "-o", help="run folder")] = Path("runs/quickstart"),
    images: Annotated[int, typer.Option(help="generated images", min=40)] = 160,
    debug: Debug = False,
) -> None:
    """Bundled model, generated data: embed, train, evaluate, report. No network, a few minutes on two cores."""
    from specialsam.pipeline.quickstart import run_quickstart

    run_quickstart(out, images)


@app.command()
def specialize(
    source: Source,
    model: Model = "nano",
    out: Out = None,
    config: Config = None,
    sets: Sets = None,
    store: Annotated[Path | None, typer.Option(help="embedding store [default: OUT/embeddings]")] = None,
    limit: Annotated[int | None, typer.Option(help="use a stable random subset of this many labelled images")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="price the embeddings (GB, minutes) and stop")] = False,
    debug: Debug = False,
) -> None:
    """The main job, end to end: measure the base, tune its decoder on your masks, measure again, report."""
    from specialsam.pipeline.specialize import SpecializeSettings, run_folder, run_specialize

    settings = SpecializeSettings.parse(_settings(config, sets))
    folder = run_folder(source, model, out)
    run_specialize(source, model, folder, settings, store=store, limit=limit, dry_run=dry_run)
