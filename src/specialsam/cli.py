"""The command line: the same nouns as the code, one line for every error, no heavy import before it is needed."""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from specialsam import __version__
from specialsam.console import complain, say, stage
from specialsam.core.errors import SpecialSamError, UsageError

DONE, FAILED, WRONG_USE = 0, 1, 2
INTERRUPTED = 130
"""What typer answers with after Ctrl-C."""

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
Base = Annotated[str | None, typer.Option(help="which zoo model a checkpoint file belongs to")]
Store = Annotated[Path | None, typer.Option(help="embedding store [default: OUT/embeddings]")]
Limit = Annotated[int | None, typer.Option(help="use a stable random subset of this many labelled images", min=1)]
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


def _show(outcome: Any) -> None:
    """The result of a run on the terminal: the verdict's table, and where everything is."""
    if outcome is None:
        return
    from specialsam.pipeline.reporting import terminal_table

    say("")
    say(terminal_table(outcome.summary, outcome.comparison))
    say(f"report: {outcome.report}")
    say(f"specialist: {outcome.folder / 'specialist'}")


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option("--out", "-o", help="run folder")] = Path("runs/quickstart"),
    images: Annotated[int, typer.Option(help="generated images", min=40)] = 160,
    debug: Debug = False,
) -> None:
    """Bundled model, generated data: embed, train, evaluate, report. No network, a few minutes on two cores."""
    from specialsam.pipeline.quickstart import run_quickstart

    _show(run_quickstart(out, images))


@app.command()
def specialize(
    source: Source,
    model: Model = "nano",
    base: Base = None,
    out: Out = None,
    config: Config = None,
    sets: Sets = None,
    store: Store = None,
    limit: Limit = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="price the embeddings (GB, minutes) and stop")] = False,
    debug: Debug = False,
) -> None:
    """The main job, end to end: measure the base, tune its decoder on your masks, measure again, report."""
    from specialsam.pipeline.settings import SpecializeSettings
    from specialsam.pipeline.specialize import run_folder, run_specialize

    settings = SpecializeSettings.parse(_settings(config, sets))
    folder = run_folder(source, model, out)
    _show(run_specialize(source, model, folder, settings, store, limit, dry_run, base))


@app.command()
def embed(
    source: Source,
    store: Annotated[Path, typer.Option(help="embedding store")],
    model: Model = "nano",
    config: Config = None,
    sets: Sets = None,
    max_gb: Annotated[float | None, typer.Option(help="size limit; the oldest embeddings give way")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="price it (GB, minutes) and stop")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="find and name damaged entries instead")] = False,
    debug: Debug = False,
) -> None:
    """Encode every labelled image once into a store that training and evaluation read."""
    from specialsam.pipeline.measure import run_embed
    from specialsam.pipeline.settings import SpecializeSettings

    run_embed(source, model, store, SpecializeSettings.parse(_settings(config, sets)), max_gb, dry_run, verify)


@app.command()
def train(
    source: Source,
    model: Model = "nano",
    base: Base = None,
    out: Out = None,
    config: Config = None,
    sets: Sets = None,
    store: Store = None,
    limit: Limit = None,
    debug: Debug = False,
) -> None:
    """Only embed and tune; `specialize` with the same options goes on to measure and report."""
    from specialsam.pipeline.settings import SpecializeSettings
    from specialsam.pipeline.specialize import run_folder, run_specialize

    settings = SpecializeSettings.parse(_settings(config, sets))
    folder = run_folder(source, model, out)
    run_specialize(source, model, folder, settings, store, limit, base_model=base, measure=False)
    say(f"specialist: {folder / 'specialist'}")


@app.command()
def evaluate(
    source: Source,
    models: Annotated[list[str], typer.Option("--model", "-m", help="a model; repeat it to compare several")],
    out: Annotated[Path, typer.Option("--out", "-o", help="run folder")],
    split: Annotated[str, typer.Option(help="test, val, train, or all; as the first specialist was tuned")] = "test",
    config: Config = None,
    sets: Sets = None,
    store: Annotated[Path | None, typer.Option(help="embedding store to read and fill")] = None,
    debug: Debug = False,
) -> None:
    """Measure any models on the same images and prompts, with trivial rivals and intervals."""
    from specialsam.core.settings import parse_settings
    from specialsam.evaluation.evaluate import EvaluateSettings
    from specialsam.pipeline.measure import means_table, run_evaluate

    if split not in ("test", "val", "train", "all"):
        raise UsageError(f"expected a --split of test, val, train or all, got {split!r}")
    settings = parse_settings(EvaluateSettings, _settings(config, sets))
    measured = run_evaluate(source, models, out, settings, split, None, store)  # type: ignore[arg-type]
    say(means_table(measured.summary))
    say(f"tables: {measured.folder / 'summary.csv'}, {measured.folder / 'means.csv'}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="a run folder of `specialize`")],
    debug: Debug = False,
) -> None:
    """Go on with a run where it stopped, and write its report anew."""
    from specialsam.pipeline.specialize import resume

    _show(resume(run))


@app.command()
def bench(
    model: Annotated[str, typer.Argument(help="any model that --model takes")] = "nano",
    bsds: Annotated[Path | None, typer.Option(help="BSDS500: images/{train,val}, masks/{train,val}/ID_aK.png")] = None,
    camo: Annotated[Path | None, typer.Option(help="CAMO: Images, GT")] = None,
    limit: Annotated[int | None, typer.Option(help="a stable random subset of this many images of each", min=1)] = None,
    rivals: Annotated[
        bool, typer.Option(help="also run Felzenszwalb and GrabCut (slow) beside the trivial rivals")
    ] = True,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="a .csv for the table")] = None,
    debug: Debug = False,
) -> None:
    """Measure a model on real photographs that it never saw, beside classical rivals on the same prompts."""
    from specialsam.pipeline.bench import run_bench

    say(run_bench(model, bsds, camo, limit, rivals, out))


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option("--out", "-o", help="run folder; an earlier run there goes on")],
    minutes: Annotated[float | None, typer.Option(help="stop (resumably) after this long")] = None,
    initial: Annotated[Path | None, typer.Option(help="state.pt of an earlier stage to begin with")] = None,
    sets: Sets = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads of the training process")] = None,
    debug: Debug = False,
) -> None:
    """Pre-train nano from nothing on generated scenes; resumable, the model folder is OUT/nano."""
    import torch

    from specialsam.core.settings import parse_settings
    from specialsam.training.pretrain import PretrainSettings, bundle
    from specialsam.training.pretrain import pretrain as run

    if threads:
        torch.set_num_threads(threads)
    settings = parse_settings(PretrainSettings, _settings(None, sets))
    with stage("pre-training") as progress:
        weights = run(out, settings, minutes, initial, progress, device=device)
    say(f"weights: {weights}; model folder: {bundle(weights, settings.encoder, out / 'nano')}")


@models_app.command("list")
def models_list(debug: Debug = False) -> None:
    """Every model by name, with size, licence and whether it is here."""
    from specialsam.models.weights import weights_path
    from specialsam.models.zoo import CARDS, NANO

    for card in (NANO, *CARDS.values()):
        here = "bundled" if card is NANO else "here" if weights_path(card).exists() else "not fetched"
        say(f"{card.name:12} {card.parameters / 1e6:7.1f} M  {card.side} px  {card.licence:12} {here:12} {card.title}")


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


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="any model that --model takes, a specialist folder above all")],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder, or a .pth file for segment-anything's layout")],
    debug: Debug = False,
) -> None:
    """Write a model as a plain transformers folder, or as a .pth in segment-anything's (MobileSAM's) key layout."""
    from specialsam.models.export import export_model

    say(f"wrote {export_model(model, out)}")


@synth_app.command("scenes")
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


def main() -> None:
    """Run the command line; every expected failure is one line and an exit code."""
    debug = "--debug" in sys.argv
    try:
        code = app(standalone_mode=False)  # typer answers with a code where it caught an interrupt or an exit itself
        if code == INTERRUPTED:
            _interrupted()
        sys.exit(code if isinstance(code, int) else DONE)
    except UsageError as error:
        _end(error, WRONG_USE, debug)
    except SpecialSamError as error:
        _end(error, FAILED, debug)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _interrupted()
    except OSError as error:
        place = f"{error.filename} " if error.filename else ""
        hint = "make room on the disk" if error.errno == errno.ENOSPC else "choose another place or its permissions"
        _end(SpecialSamError(f"cannot read or write {place}({error.strerror or error}); {hint}"), FAILED, debug, error)
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "format_message"):
            if message := error.format_message().rstrip("."):  # none where the help was shown for want of arguments
                complain(f"error: {message}; see specialsam --help")
            sys.exit(WRONG_USE)
        _end(error, FAILED, debug)


def _interrupted() -> None:
    complain("stopped; what was finished is kept, the same command goes on from there")
    sys.exit(FAILED)


def _end(error: Exception, code: int, debug: bool, cause: Exception | None = None) -> None:
    if debug:
        traceback.print_exception(cause or error)
        sys.exit(code)
    name = "" if isinstance(error, SpecialSamError) else f"unexpected {type(error).__name__}: "
    text = " ".join(str(error).split()) or "no message"
    complain(f"error: {name}{text}" + ("" if isinstance(error, SpecialSamError) else " (--debug shows where)"))
    sys.exit(code)


if __name__ == "__main__":
    main()
