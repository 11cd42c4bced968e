"""Generated images with exact masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specialsam.cli.options import Debug, Model, Sets, read_settings
from specialsam.core.console import say, stage

app = typer.Typer(help="Generated images with exact masks.", no_args_is_help=True)


@app.command("scenes")
def synth_scenes(
    out: Annotated[Path, typer.Option("--out", "-o", help="a .png for a contact sheet, else a folder for a data set")],
    count: Annotated[int, typer.Option(help="scenes", min=1)] = 24,
    side: Annotated[int, typer.Option(help="pixels a side")] = 256,
    seed: Annotated[int, typer.Option(help="first seed", min=0)] = 0,
    camouflage: Annotated[float | None, typer.Option(help="share of camouflage pairs; 1: one animal each")] = None,
    cracks: Annotated[bool, typer.Option("--cracks", help="surfaces with one thin crack each, 2 to 5 px wide")] = False,
    debug: Debug = False,
) -> None:
    """Generated scenes with exact masks: a contact sheet to look at, or a data set folder."""
    from specialsam.core.files import write_whole
    from specialsam.synth.scenes import contact_sheet, write_dataset

    if out.suffix.lower() == ".png":
        from PIL import Image

        sheet = contact_sheet(range(seed, seed + count), side, camouflage=camouflage, cracks=cracks)
        write_whole(out, lambda path: Image.fromarray(sheet).save(path))
    else:
        with stage("generating") as progress:
            share = 1.0 if camouflage is None else camouflage
            write_dataset(out, count, side, seed, share, progress=progress, cracks=cracks)
    say(f"wrote {out}")


@app.command("mosaic")
def synth_mosaic(
    source: Annotated[Path, typer.Argument(help="textures: images/ and wood.csv, or a folder of photographs")],
    out: Annotated[Path, typer.Option("--out", "-o", help="a .png for a contact sheet, else a folder for a data set")],
    count: Annotated[int | None, typer.Option(help="mosaics in all, 70/10/20 % train/val/test", min=1)] = None,
    model: Model = "nano",
    sets: Sets = None,
    debug: Debug = False,
) -> None:
    """Mosaics of textures with exact masks, from easy to hard: a contact sheet to look at, or a data set folder."""
    from specialsam.core.settings import parse_settings
    from specialsam.synth.mosaic_data import run_synth_mosaic
    from specialsam.synth.mosaic_plan import MosaicRecipe

    recipe = parse_settings(MosaicRecipe, read_settings(None, sets))
    with stage("mosaics") as progress:
        lines = run_synth_mosaic(source, out, count, recipe, model, progress)
    for line in lines:
        say(line)


@app.command("defects")
def synth_defects(
    source: Annotated[str, typer.Argument(help="a data set that holds clean images, e.g. a category of MVTec AD")],
    out: Annotated[Path, typer.Option("--out", "-o", help="a .png for a sheet of kinds, else a folder for a data set")],
    count: Annotated[int, typer.Option(help="images with a defect, in a data set", min=1)] = 100,
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="a kind of defect; repeatable [default: all]")
    ] = None,
    seed: Annotated[int, typer.Option(help="of every random choice", min=0)] = 0,
    debug: Debug = False,
) -> None:
    """Synthetic defects on clean images with exact masks: a sheet of all kinds to look at, or a data set folder."""
    from specialsam.synth.defect_data import run_synth_defects

    for line in run_synth_defects(source, out, count, kinds or (), seed):
        say(line)


@app.command("line")
def synth_line(
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for line.avi, truth.json and good/")],
    good: Annotated[int, typer.Option(help="pictures of flawless cloth, for inspect --teach", min=0)] = 120,
    sets: Sets = None,
    debug: Debug = False,
) -> None:
    """A video of a moving cloth with defects at known metres: what `inspect` is tried on, and the truth of it."""
    from specialsam.core.settings import parse_settings
    from specialsam.synth.line import LineRecipe
    from specialsam.synth.line_files import write_line

    recipe = parse_settings(LineRecipe, read_settings(None, sets))
    with stage("filming") as progress:
        counts = write_line(out, recipe, good, progress)
    say(f"wrote {out}: {', '.join(f'{number} {name}' for name, number in counts.items())}")
