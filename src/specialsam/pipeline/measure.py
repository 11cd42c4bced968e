"""Measure any models on a data set with any prompt strategies, or fill an embedding store, without tuning anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from specialsam.core.cluster import ClusterSettings
from specialsam.core.console import say, stage
from specialsam.core.errors import UsageError
from specialsam.core.folders import folder
from specialsam.core.ledger import Journal, Lock, digest, open_ledger
from specialsam.core.place import Place, here
from specialsam.core.settings import parse_settings
from specialsam.core.types import Record
from specialsam.data.loading import load, load_masks
from specialsam.data.read_settings import READ, ReadSettings
from specialsam.data.views import IDENTITY
from specialsam.embeddings import EmbeddingStore
from specialsam.embeddings.shards import Precision
from specialsam.embeddings.spread import embed_spread
from specialsam.evaluation.evaluate import Embed, EvaluateSettings, Measuring
from specialsam.evaluation.finding import Find, Finding, by_grid, measure_finds
from specialsam.evaluation.found_tables import found_table
from specialsam.evaluation.results import Asked, Results, measure, save_table
from specialsam.evaluation.rivals import disc_radius, relative_area
from specialsam.models.backends import AUTO, with_backend
from specialsam.models.finder_files import FinderParts
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import SpecialistCard, is_specialist, load_finder, read_card
from specialsam.pipeline.embedded import Stored, embeddings_of
from specialsam.pipeline.finding import GRID, finders_of, rules
from specialsam.pipeline.job import STORE, Request, begin, dataset_facts, planned, remaking
from specialsam.pipeline.plan import Fractions, Plan, plan
from specialsam.pipeline.settings import SpecializeSettings

FRACTIONS: Fractions = (0.7, 0.15, 0.15)
"""Shares of train, val and test where nothing else is asked for."""
PLACES = ("specialist", "run")
"""Names of folders that every run has, which tell no model from another."""
RADIUS_SAMPLE = 500
"""Training images whose objects decide the disc rival's size."""


@dataclass(frozen=True)
class Comparison:
    """What is asked of an evaluation: models by the text that names each, on a split of a data set.

    Without `fractions` the split is that of the first specialist's tuning, so that its test images are unseen ones.
    `data` says how its files are read, as the first specialist's recipe has it where left out.
    `base` is that of `load_model`, for every model that is not known by name.
    `store` keeps and answers embeddings, None makes them as they are needed. The workers of a `cluster` encode, then
    measure.
    """

    source: str
    models: Sequence[str]
    folder: Path
    split: Literal["test", "val", "train", "all"] = "test"
    fractions: Fractions | None = None
    store: Path | str | None = None
    precision: Precision = "half"
    device: str = "auto"
    trust_base: bool = False
    data: ReadSettings | None = None
    base: str | None = None
    cluster: ClusterSettings | None = None


@dataclass(frozen=True)
class Measured:
    """What an evaluation leaves: means, and gains of each further model over the first (None for a single one)."""

    folder: Path
    summary: pd.DataFrame
    gains: pd.DataFrame | None = None


def run_embed(request: Request, settings: SpecializeSettings, max_gb: float | None = None) -> None:
    """Encode every labelled image of a data set (train images also in their views) into the request's store."""
    place = here(request.device)
    with Lock(request.folder) if place.main else nullcontext():
        replace(planned(request, settings, place), max_gb=max_gb).prepare()


def price_embed(
    request: Request, settings: SpecializeSettings, nodes: int = 1, cards: int = 1, images: int | None = None
) -> None:
    """Say what `run_embed` would cost, here and on `nodes` machines of `cards` processors (`Embedded.price`)."""
    say(planned(request, settings, here(request.device)).price(nodes, cards, images))


def verify_store(request: Request, settings: SpecializeSettings) -> None:
    """Name the damaged embeddings of a store; they are dropped, so that the next embed makes them again."""
    segmenter = load_model(request.model, request.base, trust_base=request.trust_base)
    if request.backend != AUTO:
        segmenter = with_backend(segmenter, request.backend)
    damage = EmbeddingStore.open_existing(request.embeddings, segmenter.encoder_id, settings.precision).verify()
    for found in damage:
        say(f"damaged: {found.record} {found.key[:16]} ({found.reason}); dropped, the next embed makes it again")
    say(f"{request.embeddings}: {len(damage)} damaged embeddings")


def names_of(models: Sequence[str]) -> dict[str, str]:
    """A short name in the tables for each model that was asked for, in order."""
    out: dict[str, str] = {}
    for text in models:
        parts = Path(text).parts
        while len(parts) > 1 and parts[-1] in PLACES:
            parts = parts[:-1]
        short = Path(*parts).name or text
        name, number = short, 2
        while name in out:
            name, number = f"{short} ({number})", number + 1
        out[name] = text
    return out


def run_evaluate(asked: Comparison, settings: EvaluateSettings) -> Measured | None:
    """Measure models on one split (or all labelled images); an image is encoded once an encoder, whatever the rest.

    None in every process but the main one.
    """
    if "overlap" not in settings.groups:
        raise UsageError(
            f"expected overlap among the groups (the tables rest on IoU), got {', '.join(settings.groups)}"
        )
    place = replace(here(asked.device), cluster=asked.cluster)
    opened = _opened(asked, settings.seed, place)
    named, models, layout = opened.named, opened.models, opened.layout
    records = [record for record in layout.dataset.records if layout.splits.get(record.id) in _splits(asked.split)]
    if not records:
        raise UsageError(f"expected images in split {asked.split} of {asked.source}, got none; choose another --split")
    identity: dict[str, object] = {"job": "evaluate", "source": asked.source, "models": named, "split": asked.split}
    identity |= {"fractions": list(opened.fractions), "settings": settings.model_dump(mode="json")}
    identity |= {"data": None if asked.data is None else asked.data.model_dump(mode="json")}
    stamp = {"run": asked.folder.name, "dataset": layout.dataset.name, "split": asked.split}
    stamp |= {"subset": layout.mix(records)}
    with open_ledger(asked.folder, identity, welcome=(STORE,), first=place.first, main=place.main) as ledger:
        begin(ledger, place)
        ledger.save(dataset=dataset_facts(layout), decoders={n: model.decoder_id for n, model in models.items()})
        with ledger.timed("evaluation"), _embeddings(asked, opened, records) as embed:
            stored = asked.precision if asked.store else "live"
            wanted = Asked(records, layout.content, Measuring(load, embed, settings, stamp), stored)
            file = asked.folder / "rows.jsonl"
            results, again = measure(models, wanted, _radius(layout), file, place, "measuring")
        if again:
            say(f"{again} of {len(records)} images measured again: image, masks, weights or measures were others")
        return _written(results, list(named), asked.folder) if place.main else None


@contextmanager
def _embeddings(asked: Comparison, opened: _Opened, records: Sequence[Record]) -> Iterator[Embed]:
    """How images get their embeddings; with a cluster and a store its workers make what the store lacks, at once."""
    if asked.cluster is None or asked.store is None:
        with embeddings_of(asked.store, asked.precision) as embed:
            yield embed
        return
    makers = {model.encoder_id: opened.named[name] for name, model in opened.models.items()}
    for encoder, text in makers.items():
        make = remaking(text, asked.base, asked.device, asked.trust_base)
        store, pairs = EmbeddingStore(asked.store, encoder, asked.precision), [(record, IDENTITY) for record in records]
        with stage("encoding") as shown:

            def progress(done: int, total: int, _: str, shown: Callable[[int, int, str], None] = shown) -> None:
                shown(done, total, "")

            embed_spread(pairs, load, make, store, asked.cluster, progress=progress)
    yield Stored(str(folder(asked.store)), asked.precision)


@dataclass(frozen=True)
class _Opened:
    """Where each model is by its name in tables, the models, and the data set cut as the first specialist's was."""

    named: dict[str, str]
    models: dict[str, Segmenter]
    layout: Plan
    fractions: Fractions


def _opened(asked: Comparison, seed: int, place: Place) -> _Opened:
    named = names_of(asked.models)
    trust = asked.trust_base
    models = {n: load_model(t, asked.base, device=place.device, trust_base=trust) for n, t in named.items()}
    cards = {name: read_card(Path(text)) for name, text in named.items() if is_specialist(Path(text))}
    fractions, seed, duplicates = _splitting(cards.values(), asked, seed)
    how = asked.data or _reading(cards.values())
    layout = place.first(lambda: plan(asked.source, fractions, seed, duplicates=duplicates, how=how))
    for choice in layout.choices():
        say(f"{asked.source}: {choice}")
    for name, card in cards.items():
        if card.data_fingerprint != layout.fingerprint:
            say(
                f"note: {name} was tuned on other images or masks than the train and val splits used here; where they "
                "are of the same data set, it may have seen images that it is measured on"
            )
        elif asked.split != "test":
            say(f"note: {name} has learned from images that are measured here; --split test alone tells its worth")
    return _Opened(named, models, layout, fractions)


def _reading(cards: Iterable[SpecialistCard]) -> ReadSettings:
    """How the data set's files are read: as for the first specialist."""
    stated = next((card.recipe.get("data") for card in cards), None)
    return READ if stated is None else parse_settings(ReadSettings, stated)


def run_evaluate_found(asked: Comparison, seed: int = 0) -> pd.DataFrame | None:
    """Measure what specialists find without a prompt on one split, images of nothing included; rivals beside them.

    None in every process but the main one. UsageError where no model has a finder.
    """
    place = here(asked.device)
    opened = _opened(asked, seed, place)
    named, models, layout = opened.named, opened.models, opened.layout
    finders: dict[str, tuple[Find, str]] = {}
    for name, text in named.items():
        parts = load_finder(Path(text)) if is_specialist(Path(text)) else FinderParts()
        finders |= finders_of(name, models[name], parts)
    if not finders:
        raise UsageError(f"expected a specialist with a finder among {', '.join(named)}, got none; specialize first")
    first = models[next(iter(named))]
    others = [name for name, model in models.items() if model.encoder_id != first.encoder_id]
    if others:
        raise UsageError(f"expected models of one encoder for a comparison without prompts, got another in {others[0]}")
    finders |= {GRID: (by_grid(first), digest(first.decoder_id))} | rules()
    kinds = _splits(asked.split)
    chosen = {i for part in (layout.splits, layout.blank) for i, split in part.items() if split in kinds}
    records = [record for record in layout.dataset.records if record.id in chosen]
    identity = {"job": "evaluate without prompts", "source": asked.source, "models": named, "split": asked.split}
    with open_ledger(asked.folder, identity, welcome=(STORE,), first=place.first, main=place.main) as ledger:
        begin(ledger, place)
        ledger.save(dataset=dataset_facts(layout))
        with ledger.timed("evaluation"), embeddings_of(asked.store, asked.precision) as embed:
            wanted = Finding(records, layout.content, load, embed, first, bool(layout.blank))
            journal = Journal(asked.folder / "finds.jsonl") if place.main else None
            table = found_table(measure_finds(finders, wanted, journal, place), seed=seed)
        if not place.main:
            return None
        save_table(table, asked.folder / "finding.csv")
        return table


def _splits(split: str) -> tuple[str, ...]:
    return ("train", "val", "test") if split == "all" else (split,)


def _written(results: Results, names: Sequence[str], folder: Path) -> Measured:
    """All tables in the folder."""
    results.save(folder / "results.parquet")
    save_table(results.seed_summary(), folder / "summary.csv")
    means = results.summary()
    save_table(means, folder / "means.csv")
    first, *others = names
    if not others:
        return Measured(folder, means)
    gains = pd.concat([results.comparison(first, name).assign(model=name, over=first) for name in others])
    save_table(gains, folder / "comparison.csv")
    return Measured(folder, means, gains)


def _splitting(cards: Iterable[SpecialistCard], asked: Comparison, seed: int) -> tuple[Fractions, int, bool]:
    """Fractions, seed and whether near-duplicates stay together: as given, or as the first card's recipe says.

    Where all images are measured and nothing was learned from any, none need be kept apart.
    """
    card = next(iter(cards), None)
    if card is None and asked.fractions is None and asked.split == "all":
        return (1.0, 0.0, 0.0), seed, False
    if card is None or asked.fractions is not None:
        return asked.fractions or FRACTIONS, seed, True
    shares = card.recipe.get("fractions", FRACTIONS)
    return (shares[0], shares[1], shares[2]), card.recipe.get("seed", seed), card.recipe.get("duplicates", True)


def _radius(layout: Plan) -> float:
    """The disc rival's radius from the training objects (from all, where there is no training split)."""
    train: list[Record] = layout.of("train") or [r for r in layout.dataset.records if r.id in layout.splits]
    masks = [mask for record in train[:RADIUS_SAMPLE] for mask in load_masks(record)]
    return disc_radius([relative_area(mask) for mask in masks if mask.any()])


def gains_table(gains: pd.DataFrame, metric: str = "iou", output: str = "single") -> str:
    """Gains over the first model on the same images as plain text, in points."""
    lines = [
        f"{'prompt':16}{'model':28}{'gain':>6}  {'95 % interval':17}{'won-lost':>9}   n  over {gains.over.iloc[0]}"
    ]
    for row in gains[(gains.metric == metric) & (gains.output == output)].to_dict("records"):
        interval = f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
        won = f"{row['wins']}-{row['losses']}"
        lines.append(
            f"{row['strategy']:16}{row['model'][:27]:28}{100 * row['gain']:+6.1f}  {interval:17}{won:>9}{row['n']:>4}"
        )
    return "\n".join(lines)


def means_table(means: pd.DataFrame, metric: str = "iou") -> str:
    """Means with intervals as plain text, one block a prompt strategy."""
    lines = [f"{'prompt':16}{'model':28}{'output':14}{'IoU':>6}  95 % interval      n"]
    for row in means[means.metric == metric].to_dict("records"):
        interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
        failed = f", {row['failed']} failed" if row["failed"] else ""
        lines.append(
            f"{row['strategy']:16}{row['model'][:27]:28}{row['output']:14}{100 * row['mean']:6.1f}  {interval:17}"
            f"{row['n']:>4}{failed}"
        )
    return "\n".join(lines)
