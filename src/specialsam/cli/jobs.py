"""The jobs on a data set: quickstart, specialize, embed, train, evaluate, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from specialsam.cli.options import Base, Config, Debug, Limit, Model, Out, Sets, Source, Store, read_settings
from specialsam.core.console import say
from specialsam.core.errors import UsageError

app = typer.Typer()


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
    seeds: Annotated[int, typer.Option(help="runs with different training seeds, combined in one table", min=1)] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="price the embeddings (GB, minutes) and stop")] = False,
    debug: Debug = False,
) -> None:
    """The main job, end to end: measure the base, tune its decoder on your masks, measure again, report."""
    from specialsam.pipeline.settings import SpecializeSettings
    from specialsam.pipeline.specialize import run_folder, run_specialize

    settings = SpecializeSettings.parse(read_settings(config, sets))
    folder = run_folder(source, model, out)
    if seeds > 1 and not dry_run:
        from specialsam.pipeline.seeds import run_seeds, seeds_text

        say(seeds_text(run_seeds(source, model, folder, settings, seeds, store, limit, base).table))
        return
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

    run_embed(source, model, store, SpecializeSettings.parse(read_settings(config, sets)), max_gb, dry_run, verify)


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

    settings = SpecializeSettings.parse(read_settings(config, sets))
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
    from specialsam.pipeline.measure import gains_table, means_table, run_evaluate

    if split not in ("test", "val", "train", "all"):
        raise UsageError(f"expected a --split of test, val, train or all, got {split!r}")
    settings = parse_settings(EvaluateSettings, read_settings(config, sets))
    measured = run_evaluate(source, models, out, settings, split, None, store)  # type: ignore[arg-type]
    say(means_table(measured.summary))
    if measured.gains is not None:
        say(gains_table(measured.gains))
    say(f"tables: {', '.join(str(path) for path in sorted(measured.folder.glob('*.csv')))}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="a run folder of `specialize`")],
    debug: Debug = False,
) -> None:
    """Go on with a run where it stopped, and write its report anew."""
    from specialsam.pipeline.specialize import resume

    _show(resume(run))
