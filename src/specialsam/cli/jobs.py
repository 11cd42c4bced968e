"""The jobs on a data set: quickstart, specialize, embed, train, evaluate, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specialsam.cli.options import (
    Backend,
    Base,
    Cluster,
    Config,
    Debug,
    Device,
    Limit,
    Model,
    Out,
    Sets,
    Source,
    Store,
    TrustBase,
    read_settings,
)
from specialsam.core.console import say
from specialsam.core.errors import UsageError

if TYPE_CHECKING:
    from specialsam.pipeline.specialize import Outcome

app = typer.Typer()


def _show(outcome: Outcome | None) -> None:
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
    images: Annotated[int, typer.Option(help="generated images", min=40)] = 80,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Bundled model, generated data: embed, train, evaluate, report. No network, a few minutes on two cores."""
    from specialsam.pipeline.quickstart import run_quickstart

    _show(run_quickstart(out, images, device))


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
    search: Annotated[
        float | None, typer.Option(help="minutes to search training settings on validation first", min=0)
    ] = None,
    seeds: Annotated[int, typer.Option(help="runs with different training seeds, combined in one table", min=1)] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="price the embeddings (GB, minutes) and stop")] = False,
    device: Device = "auto",
    backend: Backend = "torch",
    trust_base: TrustBase = False,
    debug: Debug = False,
) -> None:
    """The main job, end to end: measure the base, tune its decoder on your masks, measure again, report."""
    from specialsam.pipeline.job import Request
    from specialsam.pipeline.settings import SpecializeSettings
    from specialsam.pipeline.specialize import price_specialize, run_folder, run_specialize

    asked = [] if search is None else [f"search.minutes={search}"]
    settings = SpecializeSettings.parse(read_settings(config, [*(sets or []), *asked]))
    where = run_folder(source, model, out)
    request = Request(source, model, where, base, store, limit, device=device, trust_base=trust_base, backend=backend)
    if dry_run:
        say(price_specialize(request, settings))
    elif seeds > 1:
        from specialsam.pipeline.seeds import run_seeds, seeds_text

        repeated = run_seeds(request, settings, seeds)
        if repeated is not None:
            say(seeds_text(repeated.table))
    else:
        _show(run_specialize(request, settings))


@app.command()
def embed(
    source: Source,
    store: Annotated[str, typer.Option(help="embedding store: a folder, or a URL such as s3://bucket/store")],
    model: Model = "nano",
    config: Config = None,
    sets: Sets = None,
    max_gb: Annotated[float | None, typer.Option(help="size limit; the oldest embeddings give way")] = None,
    cluster: Cluster = None,
    nodes: Annotated[int, typer.Option(help="with --dry-run: machines of the cluster to price for", min=1)] = 1,
    cards: Annotated[int, typer.Option(help="with --dry-run: GPUs in each of them", min=1)] = 1,
    images: Annotated[int | None, typer.Option(help="with --dry-run: price so many images instead", min=1)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="price it (GB, minutes) and stop")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="find and name damaged entries instead")] = False,
    device: Device = "auto",
    backend: Backend = "torch",
    trust_base: TrustBase = False,
    debug: Debug = False,
) -> None:
    """Encode every labelled image once into a store that training and evaluation read."""
    from specialsam.core.cluster import cluster_of
    from specialsam.core.folders import folder, is_url
    from specialsam.pipeline.job import Request
    from specialsam.pipeline.measure import price_embed, run_embed, verify_store
    from specialsam.pipeline.settings import SpecializeSettings

    given = read_settings(config, sets)
    how = cluster_of(cluster, given)
    settings = SpecializeSettings.parse(given)
    where = store if is_url(store) else Path(store)
    own = {"device": device, "trust_base": trust_base, "backend": backend, "cluster": how}
    request = Request(source, model, folder(store).work, store=where, **own)  # type: ignore[arg-type]
    if verify:
        verify_store(request, settings)
    elif dry_run:
        price_embed(request, settings, nodes, cards, images)
    else:
        run_embed(request, settings, max_gb)


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
    device: Device = "auto",
    backend: Backend = "torch",
    trust_base: TrustBase = False,
    debug: Debug = False,
) -> None:
    """Only embed and tune; `specialize` with the same options goes on to measure and report."""
    from specialsam.pipeline.job import Request
    from specialsam.pipeline.settings import SpecializeSettings
    from specialsam.pipeline.specialize import run_folder, run_specialize

    settings = SpecializeSettings.parse(read_settings(config, sets))
    folder = run_folder(source, model, out)
    run_specialize(
        Request(source, model, folder, base, store, limit, device=device, trust_base=trust_base, backend=backend),
        settings,
        measured=False,
    )
    say(f"specialist: {folder / 'specialist'}")


@app.command()
def evaluate(
    source: Source,
    models: Annotated[list[str], typer.Option("--model", "-m", help="a model; repeat it to compare several")],
    out: Annotated[Path, typer.Option("--out", "-o", help="run folder")],
    split: Annotated[str, typer.Option(help="test, val, train, or all; as the first specialist was tuned")] = "test",
    config: Config = None,
    sets: Sets = None,
    zoom: Annotated[bool, typer.Option("--zoom", help="also look a second time where each mask lies")] = False,
    prompts: Annotated[str, typer.Option(help="truth: drawn from the masks; none: what is found without")] = "truth",
    store: Annotated[str | None, typer.Option(help="embedding store to read and fill, a folder or URL")] = None,
    cluster: Cluster = None,
    device: Device = "auto",
    base: Base = None,
    trust_base: TrustBase = False,
    debug: Debug = False,
) -> None:
    """Measure any models on the same images and prompts, with trivial rivals and intervals."""
    from specialsam.core.cluster import cluster_of
    from specialsam.core.folders import is_url
    from specialsam.core.settings import parse_settings
    from specialsam.data.read_settings import reading_of
    from specialsam.evaluation.evaluate import EvaluateSettings
    from specialsam.pipeline.finding import finding_lines
    from specialsam.pipeline.measure import Comparison, gains_table, means_table, run_evaluate, run_evaluate_found

    if prompts not in ("truth", "none"):
        raise UsageError(f"expected --prompts truth or none, got {prompts!r}")
    if split not in ("test", "val", "train", "all"):
        raise UsageError(f"expected a --split of test, val, train or all, got {split!r}")
    given = read_settings(config, sets)
    data = reading_of(given)
    how = cluster_of(cluster, given)
    if how is not None and prompts == "none":
        raise UsageError("expected no --cluster beside --prompts none, which is measured on one machine")
    settings = parse_settings(EvaluateSettings, given | {"zoom": True} if zoom else given)
    asked = Comparison(
        source,
        models,
        out,
        split,  # type: ignore[arg-type]
        store=store if store is None or is_url(store) else Path(store),
        device=device,
        trust_base=trust_base,
        data=data,
        base=base,
        cluster=how,
    )
    if prompts == "none":
        table = run_evaluate_found(asked, settings.seed)
        if table is not None:
            say(finding_lines(table))
            say(f"table: {out / 'finding.csv'}")
        return
    measured = run_evaluate(asked, settings)
    if measured is None:
        return
    say(means_table(measured.summary))
    if measured.gains is not None:
        say(gains_table(measured.gains))
    say(f"tables: {', '.join(str(path) for path in sorted(measured.folder.glob('*.csv')))}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="a run folder of `specialize`")],
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Go on with a run where it stopped, and write its report anew."""
    from specialsam.pipeline.specialize import resume

    _show(resume(run, device))
