"""The studies: wood, carpet and camouflage from raw data to their pages, their comparison, and own photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specialsam.cli.options import Base, Debug, Device, Model, Sets, TrustBase, read_settings
from specialsam.core.console import say, stage

app = typer.Typer(help="The three studies from raw data to report, and what they say together.", no_args_is_help=True)

Data = Annotated[
    str, typer.Option("--data", "-d", help="the raw data: a folder whose layout is known, or ADAPTER:PATH")
]
Recipe = Annotated[
    str, typer.Option("--recipe", "-r", help="seed (as published), revised (its next steps), or FILE.yaml")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="study folder [default: runs/STUDY-RECIPE-MODEL]")]


@app.command()
def wood(
    data: Data,
    recipe: Recipe = "seed",
    model: Model = "nano",
    base: Base = None,
    out: Out = None,
    sets: Sets = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Textures to clusters, mosaics of graded difficulty, tuning, and results for each difficulty."""
    _study("wood", data, recipe, model, base, out, sets, device)


@app.command()
def carpet(
    data: Data,
    recipe: Recipe = "seed",
    model: Model = "nano",
    base: Base = None,
    out: Out = None,
    sets: Sets = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Synthetic defects on good images for training, all real defects for the test, results for each type."""
    _study("carpet", data, recipe, model, base, out, sets, device)


@app.command()
def camouflage(
    data: Data,
    recipe: Recipe = "seed",
    model: Model = "nano",
    base: Base = None,
    out: Out = None,
    sets: Sets = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """COD10K, SINet's package or CAMO: tuning, results for each prompt and category, false alarms."""
    _study("camouflage", data, recipe, model, base, out, sets, device)


def _study(
    study: str,
    data: str,
    recipe: str,
    model: str,
    base: str | None,
    out: Path | None,
    sets: list[str] | None,
    device: str,
) -> None:
    from specialsam.studies.recipe import load_recipe

    chosen = load_recipe(study, recipe, read_settings(None, sets))
    from specialsam.pipeline.reporting import terminal_table
    from specialsam.studies.run import run_study

    folder = out or Path("runs") / f"{study}-{Path(recipe).stem}-{Path(model).name.partition('.')[0]}"
    found = run_study(data, chosen, model, folder, base, device)
    if found is None:
        return
    say("")
    say(terminal_table(found.outcome.summary, found.outcome.comparison))
    say(f"report: {found.outcome.report}")
    say(f"study: {found.page}")


@app.command()
def compare(
    studies: Annotated[list[Path], typer.Argument(help="finished study folders", metavar="RUN...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the comparison")] = Path("runs/compare"),
    debug: Debug = False,
) -> None:
    """Performance summary, the five factors as measured, and whether the rules of thumb hold in these runs."""
    from specialsam.studies.compare import compare as run

    say(f"comparison: {run(studies, out)}")


@app.command()
def factorial(
    data: Data,
    model: Model = "nano",
    sizes: Annotated[list[int] | None, typer.Option("--size", help="training mosaics; repeatable [500, 5000]")] = None,
    seeds: Annotated[int, typer.Option(help="seeds of each combination", min=1)] = 3,
    steps: Annotated[int, typer.Option(help="steps of each combination, or one pass if more", min=1)] = 2500,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder; an earlier one goes on")] = Path("runs/factorial"),
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Why the published wood model collapsed: prompt frame, layout, loss and number of mosaics in all combinations."""
    from specialsam.studies.wood.factorial import run_factorial

    say(run_factorial(data, out, model, sizes or (500, 5000), seeds, steps, device))
    say(f"table and figure: {out}")


@app.command()
def realism(
    data: Data,
    model: Model = "nano",
    kinds: Annotated[str, typer.Option(help="synthetic kinds, comma-separated [all but composite]")] = "",
    count: Annotated[int, typer.Option(help="synthetic pictures of each kind", min=4)] = 60,
    epochs: Annotated[int, typer.Option(help="epochs of each decoder of the transfer matrix", min=1)] = 10,
    transfer: Annotated[bool, typer.Option(help="tune a decoder on each kind")] = True,
    seed: Annotated[int, typer.Option(help="of every random choice", min=0)] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder; an earlier one goes on")] = Path("runs/realism"),
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """How well synthetic defects are told from real ones in the embeddings, and which kind helps which real type."""
    from specialsam.studies.carpet.meter import terminal
    from specialsam.studies.carpet.realism_run import RealismSettings, run_realism

    named = tuple(name.strip() for name in kinds.split(",") if name.strip())
    settings = RealismSettings(named, count, seed, transfer, epochs)
    found = run_realism(data, out, model, settings, device)
    if found is not None:
        say(terminal(found))
        say(f"page: {out / 'realism.html'}")


@app.command()
def photos(
    folder: Annotated[Path, typer.Argument(help="a folder of photographs", metavar="PHOTO_FOLDER")],
    run: Annotated[Path, typer.Option("--run", help="a study, run or specialist folder")],
    click: Annotated[str, typer.Option(help="x,y in pixels of each photograph, or center")] = "center",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder [default: RUN/own-photos]")] = None,
    trust_base: TrustBase = False,
    debug: Debug = False,
) -> None:
    """Own photographs without truth: base and specialist side by side for one click."""
    from specialsam.studies.photos import run_photos

    place = out or run / "own-photos"
    with stage("photographs") as progress:
        shots, failures = run_photos(run, folder, click, place, progress, trust_base=trust_base)
    for text in failures:
        say(f"not used: {text}")
    say(f"{len(shots)} photographs: {place / 'photos.html'}")
