"""What a specialist is put to: segment, spot, calibrate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specialsam.cli.options import (
    Backend,
    Cluster,
    Config,
    Debug,
    Device,
    Model,
    Sets,
    TrustBase,
    needing,
    read_settings,
)
from specialsam.core.console import say
from specialsam.core.errors import UsageError

if TYPE_CHECKING:
    from specialsam.apps.session import Asking
    from specialsam.core.cluster import ClusterSettings

app = typer.Typer()

Pictures = Annotated[
    list[Path], typer.Argument(help="image files and folders", metavar="IMAGES...", show_default=False)
]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="folder that everything is written to")]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        help="points or boxes: CSV, COCO boxes, MegaDetector or SpeciesNet JSON [default: found without]",
        show_default=False,
    ),
]
LeastScore = Annotated[float, typer.Option(help="leave a detector's boxes below this score out", min=0, max=1)]
Zoom = Annotated[bool, typer.Option("--zoom", help="look a second time at each object, one encoder pass more")]
Tiles = Annotated[int, typer.Option(help="cut pictures larger than this many pixels into tiles; 0: never", min=0)]
Threshold = Annotated[
    float | None, typer.Option(help="probability from which an object is kept [default: the finder's]", min=0, max=1)
]
FalseAlarms = Annotated[
    str | None,
    typer.Option(
        help="share of pictures of nothing that may show anything, as 1% or .01: sets the threshold with a guarantee",
        show_default=False,
    ),
]
Most = Annotated[int, typer.Option(help="objects a picture at most, where they are found without a prompt", min=1)]


def share(text: str | None) -> float | None:
    """1% or 0.01 as a number; UsageError otherwise."""
    if text is None:
        return None
    try:
        number = float(text.rstrip("% ")) / (100 if text.rstrip().endswith("%") else 1)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise UsageError(f"expected a share of false alarms between 0 and 1, as 1% or 0.01, got {text!r}")
    return number


def _asking(zoom: bool, tiles: int, threshold: float | None, false_alarms: str | None, most: int) -> Asking:
    from specialsam.apps.session import Asking
    from specialsam.core.settings import parse_settings
    from specialsam.data.tiles import TileSettings

    return Asking(zoom, parse_settings(TileSettings, {"side": tiles}), most, threshold, share(false_alarms))


def _spread(cluster: str | None, sets: list[str] | None) -> ClusterSettings | None:
    """Settings of the cluster that answers; UsageError for settings of anything else."""
    from specialsam.core.cluster import cluster_of

    given = read_settings(None, sets)
    how = cluster_of(cluster, given)
    if given:
        raise UsageError(f"expected settings of the cluster alone, got {', '.join(given)}")
    return how


@app.command()
def segment(
    images: Pictures,
    out: OutFolder,
    model: Model = "nano",
    prompts: PromptFile = None,
    least_score: LeastScore = 0.0,
    formats: Annotated[str, typer.Option("--format", "-f", help="png, labels, coco, yolo; several by comma")] = "png",
    zoom: Zoom = False,
    tiles: Tiles = 0,
    threshold: Threshold = None,
    false_alarms: FalseAlarms = None,
    most: Most = 10,
    device: Device = "auto",
    backend: Backend = "torch",
    trust_base: TrustBase = False,
    cluster: Cluster = None,
    sets: Sets = None,
    debug: Debug = False,
) -> None:
    """Masks for new images, out of points or boxes, or found without any prompt."""
    from specialsam.apps.segment import Order
    from specialsam.apps.segment import segment as run
    from specialsam.apps.session import open_session
    from specialsam.core.place import here

    how = _asking(zoom, tiles, threshold, false_alarms, most)
    session = open_session(model, device=here(device).device, trust_base=trust_base)
    names = [name.strip() for name in formats.split(",") if name.strip()]
    run(session, Order(images, out, prompts, least_score, backend, _spread(cluster, sets)), how, names)
    say(f"masks: {out}")


@app.command()
def spot(
    photos: Pictures,
    out: OutFolder,
    model: Model = "nano",
    prompts: PromptFile = None,
    least_score: LeastScore = 0.0,
    with_base: Annotated[bool, typer.Option("--base", help="show the specialist's base beside it")] = False,
    zoom: Zoom = False,
    tiles: Tiles = 0,
    threshold: Threshold = None,
    false_alarms: FalseAlarms = None,
    most: Most = 10,
    device: Device = "auto",
    backend: Backend = "torch",
    trust_base: TrustBase = False,
    cluster: Cluster = None,
    sets: Sets = None,
    debug: Debug = False,
) -> None:
    """Look for hidden animals in photographs: marked pictures, a contact sheet, MegaDetector JSON, Camtrap DP, CSV."""
    from specialsam.apps.segment import Order
    from specialsam.apps.session import open_session
    from specialsam.apps.spot import spot as run
    from specialsam.core.place import here

    how = replace(_asking(zoom, tiles, threshold, false_alarms, most), surest=False)
    session = open_session(model, with_base=with_base, device=here(device).device, trust_base=trust_base)
    found = run(session, Order(photos, out, prompts, least_score, backend, _spread(cluster, sets)), how)
    say(f"look here first: {found.page}")


@app.command()
def calibrate(
    specialist: Annotated[Path, typer.Argument(help="specialist folder", show_default=False)],
    pictures: Annotated[list[Path], typer.Argument(help="pictures of nothing, none of which it learned from")],
    device: Device = "auto",
    trust_base: TrustBase = False,
    debug: Debug = False,
) -> None:
    """Keep the scores of pictures of nothing in a specialist, on which --false-alarms sets its threshold."""
    from specialsam.apps.alarms import calibrate as run
    from specialsam.core.place import here

    say(run(specialist, pictures, device=here(device).device, trust_base=trust_base))


@app.command()
def inspect(
    stream: Annotated[
        str,
        typer.Argument(
            help="folder or glob of pictures, video file, camera number, rtsp:// or http:// address",
            metavar="STREAM",
            show_default=False,
        ),
    ],
    out: OutFolder,
    model: Model = "nano",
    teach: Annotated[
        list[Path] | None,
        typer.Option(
            "--teach", help="good pictures that set the threshold on the spot; repeatable", show_default=False
        ),
    ] = None,
    false_alarms: Annotated[
        str | None, typer.Option(help="share of good pictures that may alarm, as 1% or .01 [default: 1%]")
    ] = None,
    config: Config = None,
    sets: Sets = None,
    live: Annotated[bool, typer.Option("--live", help="read files as a camera: always the newest picture")] = False,
    database: Annotated[str, typer.Option(help="events into a database: postgresql://user@host/name")] = "",
    mqtt: Annotated[str, typer.Option(help="events to a broker: mqtt://user:password@host/prefix")] = "",
    webhook: Annotated[str, typer.Option(help="events to an address: https://host/path")] = "",
    secret: Annotated[
        str, typer.Option(help="of the webhook's signature", envvar="SPECIALSAM_WEBHOOK_SECRET", show_default=False)
    ] = "",
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="the webhook may lie in a private network")
    ] = False,
    metrics: Annotated[
        int | None, typer.Option(help="port for Prometheus, on this machine; 0: any", min=0, max=65535)
    ] = None,
    device: Device = "auto",
    backend: Backend = "torch",
    trust_base: TrustBase = False,
    debug: Debug = False,
) -> None:
    """Inspect a production line: one alarm a defect, its place on the roll, nothing lost when something is down."""
    with needing("inspect", "line", "sqlalchemy"):
        from specialsam.apps.line.delivery import Delivery
        from specialsam.apps.line.inspect import InspectOrder
        from specialsam.apps.line.inspect import inspect as run
    from specialsam.apps.line.settings import LineSettings
    from specialsam.apps.session import open_session
    from specialsam.core.place import here
    from specialsam.core.settings import parse_settings

    asked = read_settings(config, sets) | ({} if false_alarms is None else {"false_alarms": share(false_alarms)})
    settings = parse_settings(LineSettings, asked)
    deliver = Delivery(database, mqtt, webhook, secret, allow_private, metrics)
    session = open_session(model, device=here(device).device, trust_base=trust_base)
    found = run(session, InspectOrder(stream, out, tuple(teach or ()), live, backend, deliver), settings)
    if found.page is not None:
        say(f"map of the roll: {found.page}")
