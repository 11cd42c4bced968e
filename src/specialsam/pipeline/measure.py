"""Measure any models on a data set with any prompt strategies, or fill an embedding store, without tuning anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from specialsam.core.console import say, stage
from specialsam.core.errors import UsageError
from specialsam.core.files import write_whole
from specialsam.core.types import Record
from specialsam.data.loading import load, load_masks
from specialsam.embeddings import EmbeddingStore
from specialsam.embeddings.shards import Precision
from specialsam.evaluation.evaluate import EvaluateSettings, RowFile, evaluate
from specialsam.evaluation.rivals import disc_radius, relative_area
from specialsam.evaluation.tables import comparison, seed_summary, summary
from specialsam.models.load import load_model
from specialsam.models.specialist import SpecialistCard, is_specialist, read_card
from specialsam.pipeline.embedded import Embedded, embeddings_of
from specialsam.pipeline.plan import Fractions, Plan, plan
from specialsam.pipeline.run import Run

FRACTIONS: Fractions = (0.7, 0.15, 0.15)
"""Shares of train, val and test where nothing else is asked for."""
PLACES = ("specialist", "run")
"""Names of folders that every run has, which tell no model from another."""
RADIUS_SAMPLE = 500
"""Training images whose objects decide the disc rival's size."""


@dataclass(frozen=True)
class Measured:
    """What an evaluation leaves: means, and gains of each further model over the first (None for a single one)."""

    folder: Path
    summary: Any
    gains: Any = None


def run_embed(
    source: str, model: str, folder: Path, settings: Any, max_gb: float | None, dry_run: bool, verify: bool
) -> None:
    """Encode every labelled image of a data set (train images also in their views), or price or verify the store."""
    segmenter = load_model(model)
    if verify:
        damage = EmbeddingStore.open_existing(folder, segmenter.encoder_id, settings.precision).verify()
        for found in damage:
            say(f"damaged: {found.record} {found.key[:16]} ({found.reason}); dropped, the next embed makes it again")
        say(f"{folder}: {len(damage)} damaged embeddings")
        return
    layout = plan(source, settings.fractions, settings.seed, None, settings.duplicates)
    embedded = Embedded(folder, segmenter, layout, settings, folder / "targets.sqlite", max_gb)
    if dry_run:
        say(embedded.price())
    else:
        embedded.prepare()


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


def run_evaluate(
    source: str,
    models: Sequence[str],
    folder: Path,
    settings: EvaluateSettings,
    split: Literal["test", "val", "train", "all"],
    fractions: Fractions | None,
    store: Path | None,
    precision: Precision = "half",
) -> Measured:
    """Measure models on one split (or all labelled images); an image is encoded once an encoder, whatever the rest.

    Without `fractions` the split is that of the first specialist's tuning, so that its test images are unseen ones.
    """
    if "overlap" not in settings.groups:
        raise UsageError(
            f"expected overlap among the groups (the tables rest on IoU), got {', '.join(settings.groups)}"
        )
    named = names_of(models)
    segmenters = {name: load_model(text) for name, text in named.items()}
    cards = {name: read_card(Path(text)) for name, text in named.items() if is_specialist(Path(text))}
    fractions, seed, duplicates = _splitting(cards.values(), fractions, settings.seed)
    layout = plan(source, fractions, seed, duplicates=duplicates)
    for name, card in cards.items():
        if card.data_fingerprint != layout.fingerprint:
            say(
                f"note: {name} was tuned on other images than the train and val splits used here; where they are of "
                "the same data set, it may have seen images that it is measured on"
            )
    ids = {name: segmenter.decoder_id for name, segmenter in segmenters.items()}
    identity = {"source": source, "models": named, "decoders": ids, "split": split, "fractions": list(fractions)}
    run = Run(folder, identity | {"settings": settings.model_dump(mode="json")})
    records = [r for r in layout.dataset.records if split in ("all", layout.splits.get(r.id)) and r.id in layout.splits]
    if not records:
        raise UsageError(f"expected images in split {split} of {source}, got none; choose another --split")
    file = RowFile(run.folder / "rows.jsonl")
    done = file.records()
    left = [record for record in records if record.id not in done]
    stamp = {"run": run.folder.name, "dataset": layout.dataset.name, "split": split, "subset": layout.mix(records)}
    with run.timed("evaluation"), stage("measuring") as progress, embeddings_of(store, precision) as embed:
        measured = evaluate(segmenters, left, load, embed, settings, stamp, _radius(layout))
        for number, (record, rows) in enumerate(zip(left, measured, strict=True), len(done) + 1):
            file.append(record.id, rows)
            progress(number, len(records), record.id)
    frame = file.frame()
    means, seed_table = summary(frame), seed_summary(frame[frame.output == "single"])
    write_whole(folder / "results.parquet", lambda path: frame.to_parquet(path, index=False))
    write_whole(folder / "summary.csv", lambda path: seed_table.to_csv(path, index=False))
    write_whole(folder / "means.csv", lambda path: means.to_csv(path, index=False))
    if len(named) == 1:
        return Measured(folder, means)
    first, *others = named
    gains = pd.concat([comparison(frame, first, name).assign(model=name, over=first) for name in others])
    write_whole(folder / "comparison.csv", lambda path: gains.to_csv(path, index=False))
    return Measured(folder, means, gains)


def _splitting(cards: Iterable[SpecialistCard], fractions: Fractions | None, seed: int) -> tuple[Fractions, int, bool]:
    """Fractions, seed and whether near-duplicates stay together: as given, or as the first card's recipe says."""
    card = next(iter(cards), None)
    if fractions is not None or card is None:
        return fractions or FRACTIONS, seed, True
    shares = card.recipe.get("fractions", FRACTIONS)
    return (shares[0], shares[1], shares[2]), card.recipe.get("seed", seed), card.recipe.get("duplicates", True)


def _radius(layout: Plan) -> float:
    """The disc rival's radius from the training objects (from all, where there is no training split)."""
    train: list[Record] = layout.of("train") or [r for r in layout.dataset.records if r.id in layout.splits]
    masks = [mask for record in train[:RADIUS_SAMPLE] for mask in load_masks(record)]
    return disc_radius([relative_area(mask) for mask in masks if mask.any()])


def gains_table(gains: Any, metric: str = "iou", output: str = "single") -> str:
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


def means_table(means: Any, metric: str = "iou") -> str:
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
