"""What every job on a data set stands on: where it runs, its folder, the plan, embeddings; made once, passed down."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path

from specialsam import __version__
from specialsam.core.cluster import ClusterSettings
from specialsam.core.console import say
from specialsam.core.errors import DataError, UsageError
from specialsam.core.folders import is_url
from specialsam.core.ledger import Ledger, open_ledger, read_facts
from specialsam.core.machine import machine, peak_memory_mb, versions
from specialsam.core.place import Place, here
from specialsam.core.sampling import evenly
from specialsam.core.types import Split
from specialsam.data.look import readable
from specialsam.data.read_settings import READ
from specialsam.models.backends import AUTO, PLAIN, SAMPLED, fastest, with_backend
from specialsam.models.cut import features_of
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.pipeline.embedded import Embedded
from specialsam.pipeline.plan import Plan, plan
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.training.settings import TrainSettings
from specialsam.training.tuning import TAIL_MODES

STORE, TARGETS = "embeddings", "targets.sqlite"
"""Where embeddings lie if nothing else is asked for, and the packed masks."""


@dataclass(frozen=True)
class Request:
    """What is asked of a job beside its settings.

    `source` is a data set as `open_dataset` takes it, `model` and `base` as `load_model` takes them, `folder` where
    everything lands. `store` is a shared embedding store, a path or a URL (else one in the folder), `limit` a stable
    subset of so many labelled images, `believed` the images with objects that the user believes to have, `backend` how
    the encoder runs, `cluster` whose workers encode.
    """

    source: str
    model: str
    folder: Path
    base: str | None = None
    store: Path | str | None = None
    limit: int | None = None
    believed: int | None = None
    title: str = ""
    device: str = "auto"
    trust_base: bool = False
    backend: str = PLAIN
    cluster: ClusterSettings | None = None

    @property
    def embeddings(self) -> Path | str:
        return self.store or self.folder / STORE

    def identity(self) -> dict[str, object]:
        """What a folder is begun with; where a job runs is no part of it."""
        names = ("source", "model", "base", "store", "limit", "believed", "title")
        own = {name: value for name, value in asdict(self).items() if name in names}
        return own | ({"backend": self.backend} if self.backend != PLAIN else {})

    @classmethod
    def read(cls, folder: Path) -> tuple[Request, str, dict[str, object]]:
        """The request that a run folder was begun with, its job and settings; UsageError or DataError for none."""
        identity = read_facts(folder)["identity"]
        try:
            job, settings = str(identity["job"]), dict(identity["settings"])
            named = identity["store"]
            store = named if is_url(named) else Path(named) if named else None
            names = {name: identity[name] for name in ("source", "model", "base", "limit", "believed", "title")}
            by = str(identity.get("backend", PLAIN))
            return cls(folder=folder, store=store, backend=by, **names), job, settings
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"expected the run of this version in {folder / 'run.json'}, got another; begin it anew elsewhere"
            ) from error


@dataclass(frozen=True)
class Job:
    """One job at work: `segmenter` is the base on the place's device; `ledger` is its folder, locked while it runs."""

    request: Request
    place: Place
    ledger: Ledger
    segmenter: Segmenter
    plan: Plan
    embedded: Embedded
    settings: SpecializeSettings

    @property
    def folder(self) -> Path:
        return self.ledger.folder

    @cached_property
    def learned(self) -> Embedded:
        """What tuning reads: the embeddings, or features at the cut where the end of the encoder is tuned too."""
        train = self.settings.train
        if train.mode not in TAIL_MODES:
            return self.embedded
        head = features_of(self.segmenter, train.tail_blocks)
        own = embedded_of(self.request, head, self.plan, self.settings, self.place)
        return replace(own, blanks=False, splits=("train", "val"), cluster=None)

    def prepare(self) -> None:
        """Encode what is missing, pack masks; in every process."""
        self.embedded.prepare()
        if self.learned is not self.embedded:
            say("features before the end of the encoder, which is tuned too:")
            self.learned.prepare()

    def with_training(self, train: TrainSettings) -> Job:
        """The same job with other settings of tuning."""
        return replace(self, settings=self.settings.model_copy(update={"train": train}))

    def with_plan(self, layout: Plan) -> Job:
        """The same job on another cut of its data."""
        return replace(
            self, plan=layout, embedded=embedded_of(self.request, self.segmenter, layout, self.settings, self.place)
        )


@contextmanager
def open_job(
    name: str,
    request: Request,
    settings: SpecializeSettings,
    more: Mapping[str, object] | None = None,
    needs: Sequence[Split] = (),
) -> Iterator[Job]:
    """Begin or go on with the job `name`; `more` is added to what its folder is begun with.

    UsageError, before anything is written, where a split that it `needs` has no image. Says what has changed since the
    folder was last worked on, and saves what the job works on.
    """
    place = here(request.device)
    embedded = planned(request, settings, place)
    segmenter, layout = embedded.segmenter, embedded.plan
    for split in needs:
        if not layout.of(split):
            raise UsageError(
                f"expected images in the {split} split of {request.source} to measure on, got none; set other fractions"
            )
    identity = {"job": name, **request.identity(), "encoder": segmenter.encoder_id, "decoder": segmenter.decoder_id}
    identity |= {"settings": settings.model_dump(mode="json"), **(more or {})}
    with open_ledger(request.folder, identity, welcome=(STORE,), first=place.first, main=place.main) as ledger:
        begin(ledger, place)
        job = Job(request, place, ledger, segmenter, layout, embedded, settings)
        for choice in layout.choices():
            say(f"{request.source}: {choice}")
        changed = changes(ledger.facts.get("content"), layout)
        if changed:
            say(f"{request.source}: {changed} since the last call; what they touch is done again")
        ledger.save(
            dataset=dataset_facts(layout),
            splits=dict(layout.splits),
            licence=layout.dataset.licence,
            content=_digests(layout),
        )
        yield job
        ledger.save(peak_memory_mb=peak_memory_mb())


def job_folder(job: str, source: str) -> Path:
    """Where a job lands if nothing else is asked for: runs/JOB-SOURCE."""
    return Path("runs") / f"{job}-{Path(source.rpartition(':')[2]).resolve().name}"


def planned(request: Request, settings: SpecializeSettings, place: Place) -> Embedded:
    """A request's model on its device, the plan of its data (made by the main process), and where embeddings go."""
    segmenter = load_model(request.model, request.base, device=place.device, trust_base=request.trust_base)
    where = request.source, settings.fractions, settings.seed, request.limit, settings.duplicates
    layout = place.first(lambda: plan(*where, settings.data or READ))
    by = request.backend
    if by == AUTO:
        files = evenly([record.image for record in layout.dataset.records], SAMPLED)
        by = place.first(lambda: fastest(segmenter, lambda: readable(files)))
    segmenter = with_backend(segmenter, by)
    return embedded_of(request, segmenter, layout, settings, place)


def embedded_of(
    request: Request, segmenter: Segmenter, layout: Plan, settings: SpecializeSettings, place: Place
) -> Embedded:
    """The embeddings and masks of a request's folder by its settings."""
    where = request.embeddings, segmenter, layout, request.folder / TARGETS, place
    how = settings.precision, settings.views, settings.seed, settings.tiles, settings.finder.enabled
    by = segmenter.backend.name if segmenter.backend else PLAIN
    return Embedded(
        *where,
        *how,
        cluster=request.cluster,
        remake=remaking(request.model, request.base, request.device, request.trust_base, by),
    )


def remaking(
    model: str, base: str | None, device: str, trust_base: bool, backend: str = PLAIN
) -> Callable[[], Segmenter]:
    """`encoder_of` for workers that run in other folders: what lies on a disk is named from its root."""
    named = [str(Path(text).absolute()) if text and Path(text).exists() else text for text in (model, base)]
    return partial(encoder_of, str(named[0]), named[1], device, trust_base, backend)


def encoder_of(model: str, base: str | None, device: str, trust_base: bool, backend: str) -> Segmenter:
    """A request's model in a worker of a cluster, on the worker's own device; files are named from the root."""
    segmenter = load_model(model, base, device=here(device).device, trust_base=trust_base)
    return with_backend(segmenter, backend)


def begin(ledger: Ledger, place: Place) -> None:
    """Facts of this call: when the folder was begun, the command, versions, the machine and its processes."""
    if "started" not in ledger.facts:
        ledger.facts["started"] = datetime.now(UTC).isoformat(timespec="seconds")
        ledger.facts["command"] = shlex.join(["specialsam", *sys.argv[1:]])
    ledger.facts.setdefault("seconds", {})
    ledger.save(
        version=__version__,
        versions=versions(),
        machine=machine() | {"device": str(place.device), "processes": place.count},
    )


def dataset_facts(layout: Plan) -> dict[str, object]:
    """What run.json says of the data set."""
    dataset = layout.dataset
    return {
        "name": dataset.name,
        "layout": dataset.layout,
        "counts": layout.counts(),
        "fingerprint": layout.fingerprint,
        "citation": dataset.citation,
        "notes": list(dataset.notes),
    }


def changes(before: Mapping[str, list[str]] | None, layout: Plan) -> str:
    """What came, went or changed among the images and masks since `before`, in words; "" for nothing."""
    if before is None:
        return ""
    now = _digests(layout)
    both = before.keys() & now.keys()
    counts = {
        "changed": sum(before[name] != now[name] for name in both),
        "added": len(now.keys() - before.keys()),
        "removed": len(before.keys() - now.keys()),
    }
    told = [f"{count} {word}" for word, count in counts.items() if count]
    return f"images or masks {', '.join(told)}" if told else ""


def _digests(layout: Plan) -> dict[str, list[str]]:
    """Digests of the image and of the masks of each record, as run.json keeps them."""
    return {name: [one.image, one.masks] for name, one in layout.content.items()}
