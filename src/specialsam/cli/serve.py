"""The command of the web page and the API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specialsam.cli.options import Config, Debug, Device, Model, Sets, TrustBase, needing, read_settings

app = typer.Typer()


@app.command()
def serve(
    model: Model = "nano",
    specialist: Annotated[
        Path | None, typer.Option(help="specialist folder that answers beside its base", show_default=False)
    ] = None,
    runs: Annotated[Path, typer.Option(help="folder of runs that are listed, and that tuning adds to")] = Path("runs"),
    data: Annotated[Path, typer.Option(help="data set folder that corrected masks join")] = Path("corrections"),
    line: Annotated[
        Path | None, typer.Option(help="folder of an inspection that is watched", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on; any but this machine's own demands a token")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0: any", min=0, max=65535)] = 8000,
    token: Annotated[
        str,
        typer.Option(
            help="that requests must bear [default: made up where one is demanded]", envvar="SPECIALSAM_TOKEN"
        ),
    ] = "",
    names: Annotated[
        list[str] | None,
        typer.Option("--name", help="host name by which this machine is reached; repeatable", show_default=False),
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option("--tune", help="setting of the tuning, e.g. train.epochs=5; repeatable", show_default=False),
    ] = None,
    config: Config = None,
    sets: Sets = None,
    device: Device = "auto",
    trust_base: TrustBase = False,
    debug: Debug = False,
) -> None:
    """A web page and a JSON API: click and see, correct and tune again, watch the line. --set changes its limits."""
    with needing("serve", "serve", "fastapi", "starlette", "uvicorn"):
        from specialsam.apps.web.server import Listening, ServeOrder
        from specialsam.apps.web.server import serve as run
    from specialsam.apps.web.limits import Limits
    from specialsam.core.settings import parse_settings

    order = ServeOrder(model, specialist, runs, data, line, tuple(tune or ()), device, trust_base)
    limits = parse_settings(Limits, read_settings(config, sets))
    run(order, Listening(host, port, token, tuple(names or ())), limits)
