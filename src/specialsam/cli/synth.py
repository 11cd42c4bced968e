"""Generated images with exact masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specialsam.cli.options import Debug
from specialsam.console import say, stage

app = typer.Typer(help="Generated images with exact masks.", no_args_is_help=True)


@app.command("scenes")
def synth_scenes(
    out: Annotated[Path, typer.Option("--out", "-o", help="a .png for a contact sheet, else a folder for a data set")],
    count: Annotated[int, typer.Option(help="scenes", min=1)] = 24,
    side: Annotated[int, typer.Option(help="pixels a side")] = 256,
    seed: Annotated[int, typer.Option(help="first seed")] = 0,
    camouflage: Annotated[float | None, typer.Option(help="share of camouflage pairs; 1: one animal each")] = None,
    debug: Debug = False,
) -> None:
    """Generated scenes with exact masks: a contact sheet to look at, or a data set folder."""
    from specialsam.core.files import write_whole
    from specialsam.synth.scenes import contact_sheet, write_dataset

    if out.suffix.lower() == ".png":
        from PIL import Image

        sheet = contact_sheet(range(seed, seed + count), side)
        write_whole(out, lambda path: Image.fromarray(sheet).save(path))
    else:
        with stage("generating") as progress:
            write_dataset(out, count, side, seed, 1.0 if camouflage is None else camouflage, progress=progress)
    say(f"wrote {out}")
