"""The models: list, show, fetch, verify, export, pretrain and its figure, bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specialsam.cli.options import Base, Debug, Sets, TrustBase, read_settings
from specialsam.core.console import say, stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from specialsam.core.geometry import ImageArray

app = typer.Typer()
models_app = typer.Typer(help="The models that specialsam knows: list, show, fetch, verify.", no_args_is_help=True)


@app.command()
def bench(
    model: Annotated[str, typer.Argument(help="any model that --model takes")] = "nano",
    bsds: Annotated[Path | None, typer.Option(help="BSDS500: images/{train,val}, masks/{train,val}/ID_aK.png")] = None,
    camo: Annotated[Path | None, typer.Option(help="CAMO: Images, GT")] = None,
    limit: Annotated[int | None, typer.Option(help="a stable random subset of this many images of each", min=1)] = None,
    segments: Annotated[
        int | None, typer.Option(help="a stable random sample of this many segments of each image", min=1)
    ] = None,
    rivals: Annotated[
        bool, typer.Option(help="also run Felzenszwalb and GrabCut (slow) beside the trivial rivals")
    ] = True,
    clicks: Annotated[int, typer.Option(help="clicks one after the other, for the curve and NoC", min=1)] = 5,
    zoom: Annotated[bool, typer.Option("--zoom", help="also look a second time where each first answer lies")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="a .csv for the table")] = None,
    figure: Annotated[Path | None, typer.Option(help="a picture of IoU over clicks, .png, .svg or .pdf")] = None,
    trust_base: TrustBase = False,
    debug: Debug = False,
) -> None:
    """Measure a model on real photographs that it never saw, beside classical rivals on the same prompts."""
    from specialsam.evaluation.bench import BenchSettings, run_bench

    _check_picture(figure, "--figure")
    measured = run_bench(model, bsds, camo, BenchSettings(limit, segments, rivals, clicks, zoom), out, trust_base)
    say(measured.text)
    if figure is not None:
        from specialsam.report.clicking import clicks_figure

        _save_picture(clicks_figure(measured.rows, clicks), figure)
        say(f"wrote {figure}")


def _check_picture(path: Path | None, option: str) -> None:
    """Refuse a name that says no kind of picture."""
    from specialsam.core.errors import UsageError

    if path is not None and path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"expected {option} to end in .png, .svg or .pdf, got {path}")


def _save_picture(figure: Figure, path: Path) -> None:
    from specialsam.core.files import write_whole

    write_whole(path, lambda beside: figure.savefig(beside, dpi=150))


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option("--out", "-o", help="run folder; an earlier run there goes on")],
    minutes: Annotated[float | None, typer.Option(help="stop (resumably) after this long")] = None,
    initial: Annotated[Path | None, typer.Option(help="state.pt of an earlier stage or a model to begin with")] = None,
    sets: Sets = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads of the training process")] = None,
    debug: Debug = False,
) -> None:
    """Pre-train nano from nothing on generated scenes; resumable, the model folder is OUT/nano."""
    import torch

    from specialsam.core.settings import parse_settings
    from specialsam.training.pretrain import bundle
    from specialsam.training.pretrain import pretrain as run
    from specialsam.training.pretrain_settings import PretrainSettings

    if threads:
        torch.set_num_threads(threads)
    settings = parse_settings(PretrainSettings, read_settings(None, sets))
    with stage("pre-training") as progress:
        weights = run(out, settings, minutes, initial, progress, device=device)
    say(f"weights: {weights}; model folder: {bundle(weights, settings.encoder, out / 'nano', settings.side)}")


@app.command("pretrain-figure")
def pretrain_figure(
    runs: Annotated[list[Path], typer.Argument(help="run folders of `pretrain`: the stages in their order")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the picture, .png, .svg or .pdf")],
    debug: Debug = False,
) -> None:
    """Draw a pre-training: validation IoU, training loss and learning rate over images seen, stages in a row."""
    from specialsam.report.pretraining import pretraining_figure, read_stage

    _check_picture(out, "--out")
    stages = [read_stage(run) for run in runs]
    _save_picture(pretraining_figure(stages), out)
    seen = ", ".join(f"{stage.name} {stage.images:,} images at {stage.side} px" for stage in stages)
    say(f"wrote {out}: {seen}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="any model that --model takes, a specialist folder above all")],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder, or a .pth file for segment-anything's layout")],
    kind: Annotated[
        str, typer.Option("--format", "-f", help="torch; onnx or openvino: their files beside it; x-anylabeling")
    ] = "torch",
    images: Annotated[
        Path | None, typer.Option(help="folder of pictures that onnx files are checked on [default: generated ones]")
    ] = None,
    base: Base = None,
    trust_base: TrustBase = False,
    debug: Debug = False,
) -> None:
    """Write a model as a plain transformers folder, or as a .pth in segment-anything's (MobileSAM's) key layout.

    For ONNX Runtime and OpenVINO the encoder, the decoder (any number of objects and points, mask input) and a
    specialist's finder are written beside it, checked against the model's own masks. For X-AnyLabeling the folder holds
    a pair of ONNX files and x-anylabeling.yaml, which its "Load custom model" opens.
    """
    from specialsam.models.export import export_model

    check = _pictures(images) if kind != "torch" else []
    say(f"wrote {export_model(model, out, base, trust_base=trust_base, check=check, kind=kind)}")


def _pictures(folder: Path | None, count: int = 10) -> list[ImageArray]:
    """Some pictures, uint8 (H, W, 3): those of a folder, or generated ones."""
    if folder is None:
        from specialsam.synth.scenes import scene

        return [scene(seed, 448).image for seed in range(count)]
    from specialsam.core.errors import UsageError
    from specialsam.core.sampling import evenly
    from specialsam.data.headers import SUFFIXES
    from specialsam.data.look import readable

    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    images = readable(evenly(found, count))
    if not images:
        raise UsageError(f"expected a folder of pictures, got none in {folder}")
    return images


@app.command()
def push(
    specialist: Annotated[Path, typer.Argument(help="specialist folder", show_default=False)],
    repo_id: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub", show_default=False)],
    public: Annotated[bool, typer.Option("--public", help="for everybody to see [default: private]")] = False,
    data_licence: Annotated[str, typer.Option(help="licence of the data, where the specialist knows none")] = "",
    base: Annotated[str, typer.Option(help="the base as others get it, where it was a file or folder here")] = "",
    base_licence: Annotated[str, typer.Option(help="licence of a base that is none of the known models")] = "",
    licence_file: Annotated[
        Path | None, typer.Option(help="licence text that goes along [default: Apache-2.0's for bases under it]")
    ] = None,
    may_share: Annotated[
        bool, typer.Option("--may-share", help="I may share what was learned from these data, whatever is said of them")
    ] = False,
    debug: Debug = False,
) -> None:
    """Share a specialist on the Hugging Face hub, with a page that says what it is good for: private unless told."""
    from specialsam.apps.hub import push as run
    from specialsam.apps.model_card import Terms

    terms = Terms(data_licence, base, base_licence, may_share)
    say(f"pushed to {run(specialist, repo_id, terms, public=public, licence=licence_file)}")


@app.command()
def pull(
    repo_id: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="new folder", show_default=False)],
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit")] = None,
    debug: Debug = False,
) -> None:
    """Fetch a specialist from the Hugging Face hub and check it; what does not come whole leaves nothing behind."""
    from specialsam.apps.hub import pull as run
    from specialsam.models.specialist import read_card

    folder = run(repo_id, out, revision)
    card = read_card(folder)
    say(f"pulled {card.name} (base {card.base}, data: {card.data_licence}): {folder}")


@models_app.command("backends")
def models_backends(
    model: Annotated[str, typer.Argument(help="any model that --model takes")] = "nano",
    images: Annotated[Path | None, typer.Option(help="folder of pictures [default: generated ones]")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads", min=1)] = None,
    debug: Debug = False,
) -> None:
    """Measure every way to run a model's encoder here: milliseconds a picture, and masks beside torch's own."""
    import torch

    from specialsam.models.backends import SAMPLED, table, trials
    from specialsam.models.load import load_model

    if threads:
        torch.set_num_threads(threads)
    say(table(trials(load_model(model), _pictures(images, SAMPLED))))


@models_app.command("list")
def models_list(debug: Debug = False) -> None:
    """Every model by name, with size, licence and whether it is here."""
    from specialsam.models.weights import weights_path
    from specialsam.models.zoo import CARDS, NANO

    for card in (NANO, *CARDS.values()):
        here = "bundled" if card is NANO else "here" if weights_path(card).exists() else "not fetched"
        say(f"{card.name:22} {card.parameters / 1e6:7.1f} M  {card.side} px  {card.licence:12} {here:12} {card.title}")


@models_app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(help="a zoo name or a specialist folder")], debug: Debug = False
) -> None:
    """The card of a model, or of a specialist folder."""
    from specialsam.models.specialist import is_specialist, read_card
    from specialsam.models.zoo import card

    if is_specialist(Path(name)):
        say(read_card(Path(name)).model_dump_json(indent=2))
        return
    for field, value in vars(card(name)).items():
        say(f"{field:12} {value}")


@models_app.command("fetch")
def models_fetch(name: Annotated[str, typer.Argument(help="a zoo name")], debug: Debug = False) -> None:
    """Download a checkpoint and verify its hash; without a network, say where to put the file."""
    from specialsam.models.weights import fetch
    from specialsam.models.zoo import card

    with stage(f"fetching {name}") as progress:
        say(str(fetch(card(name), progress)) if name != "nano" else "nano comes with the package")


@models_app.command("verify")
def models_verify(name: Annotated[str, typer.Argument(help="a zoo name")], debug: Debug = False) -> None:
    """Check a fetched checkpoint against its published hash."""
    from specialsam.models.load import verify_bundled
    from specialsam.models.weights import verify
    from specialsam.models.zoo import card

    say(f"{verify_bundled() if name == 'nano' else verify(card(name))}: as published")


@models_app.command("transplant")
def models_transplant(
    specialist: Annotated[Path, typer.Argument(help="specialist folder, tuned on another model", show_default=False)],
    model: Annotated[str, typer.Argument(help="the model whose encoder it shall stand on", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for the new specialist")],
    debug: Debug = False,
) -> None:
    """Put a specialist's decoder on another encoder, as where it is tuned on a large one and runs on a small one."""
    from specialsam.core.errors import UsageError
    from specialsam.models.load import load_model
    from specialsam.models.specialist import transplant

    if out.exists():
        raise UsageError(f"expected a new folder for the transplant, got {out}, which is there already")
    wanted = str(Path(model).resolve()) if Path(model).exists() else model
    say(f"wrote {transplant(specialist, load_model(model), wanted, out)}; measure it before it is used")
