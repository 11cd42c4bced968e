"""Does the audit find what it says? Every known fault planted in generated data, and clean runs beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from shutil import rmtree

import torch

from specialsam.advice.checks.audit import audit
from specialsam.advice.checks.faults import FAULTS, Case
from specialsam.advice.probes.blind import blind, blind_decoder, rival_iou, shortcut
from specialsam.advice.probes.looks import encoder_unchanged, run_probes, validation_leak
from specialsam.advice.probes.monitor import review
from specialsam.advice.subject import Subject
from specialsam.core.console import Progress
from specialsam.core.errors import TrainingError
from specialsam.core.findings import Finding
from specialsam.core.geometry import BoolArray
from specialsam.core.place import here
from specialsam.core.types import Embedding, Record, Sample, Truth
from specialsam.data.content import digest_array
from specialsam.data.loading import load
from specialsam.data.open import open_dataset
from specialsam.data.splits import split_records, stable_hash
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter, fingerprint
from specialsam.models.specialist import clone
from specialsam.synth.scenes import write_dataset
from specialsam.training.loop import per_image_iou, train
from specialsam.training.settings import TrainSettings
from specialsam.training.state import Item, TrainingData

IMAGES, SIDE = 80, 192
CLEAN = 10
"""Clean runs of the full self-test, each with a data set of its own."""
CHANCE = 2
"""Clean runs of ten that may raise an alarm: where one in ten does by chance, three do in 7 % of all self-tests."""
CATEGORIES = ("ant", "bee", "crab", "dove")
"""Names that the generated images are sorted under by hash, so that the class mix can be wrong."""
SETTINGS = TrainSettings(epochs=4, batch=4, patience=0, prompts={"random": 0.6, "box_jitter": 0.4})


@dataclass(frozen=True)
class Trial:
    """One run of all checks: what was planted ("" for a clean one), what should have spoken, what did."""

    planted: str
    seed: int
    expected: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def alarms(self) -> tuple[str, ...]:
        return tuple(finding.check for finding in self.findings if finding.level != "pass")

    @property
    def right(self) -> bool:
        """A fault is named by one of the right checks; a clean run raises nothing."""
        return bool(set(self.expected) & set(self.alarms)) if self.planted else not self.alarms


def run_self_test(folder: Path, faults: Sequence[str], clean: int, progress: Progress | None = None) -> list[Trial]:
    """Plant each of `faults` once, and run `clean` clean cases with other seeds; generated data go to `folder`."""
    trials = []
    total = len(faults) + clean
    for number, name in enumerate(faults):
        case = FAULTS[name].plant(_clean_case(folder, number % 3))
        findings = audit(case.subject)
        if FAULTS[name].trained:
            findings += after_training(case)
        trials.append(Trial(name, number % 3, FAULTS[name].checks, tuple(findings)))
        if progress:
            progress(number + 1, total, name)
    for seed in range(clean):
        case = _clean_case(folder, seed)
        trials.append(Trial("", seed, (), (*audit(case.subject), *after_training(case))))
        if progress:
            progress(len(faults) + seed + 1, total, f"clean, seed {seed}")
    return trials


@lru_cache(maxsize=3)
def _clean_case(folder: Path, seed: int) -> Case:
    """A case without a fault; faults are planted in copies, so all of a seed share its images and embeddings."""
    segmenter, data = load_model("nano"), folder / f"data-{seed}"
    write_dataset(data, IMAGES, SIDE, 40_000 + 1000 * seed, camouflage=0.3)
    dataset = open_dataset(f"folder:{data}")
    names = [CATEGORIES[int(4 * stable_hash(f"category:{record.id}"))] for record in dataset.records]
    records = tuple(replace(record, category=name) for record, name in zip(dataset.records, names, strict=True))
    splits = split_records(records, (0.6, 0.15, 0.25), seed)
    made: dict[tuple[str, str], Embedding] = {}

    def embed(truth: Truth, model: Segmenter) -> Embedding:
        image = truth.image if isinstance(truth, Sample) else load(truth.record).image
        if (key := (digest_array(image), model.encoder_id)) not in made:  # a planted load may give another image
            made[key] = model.encode(image)
        return made[key]

    samples = {record.id: load(record) for record in records}
    subject = Subject(replace(dataset, records=records), splits, partial(_kept, samples), segmenter, embed)
    return Case(subject, folder / f"runs-{seed}", seed, SETTINGS.model_copy(update={"seed": seed}))


def _kept(samples: Mapping[str, Sample], record: Record) -> Sample:
    """A sample as it was read, for a record that is as it was; another file under its name is read anew."""
    kept = samples.get(record.id)
    return kept if kept is not None and kept.record == record else load(record)


def after_training(case: Case) -> list[Finding]:
    """Tune on the case's training images, and ask every check that speaks after training."""
    subject, settings, place = case.subject, case.settings, here()
    data = _training_data(case)
    tuned = clone(subject.segmenter, "tuned", share_encoder=not case.moves_encoder)
    try:
        result = train(tuned, data, settings, _fresh(case.folder / "tuned"), place)
    except TrainingError as error:
        return [Finding("training stability", "fail", str(error), {}, (), "lower the learning rate")]
    if case.moves_encoder:
        with torch.no_grad():
            for parameter in tuned.encoder.parameters():
                parameter.mul_(1.001)
        result = replace(result, encoder_after=fingerprint(tuned.encoder))
    unseeing, _ = blind_decoder(subject.segmenter, data, settings, _fresh(case.folder / "blind"), place)
    broken = case.broken(tuned) if case.broken else tuned
    on_test = replace(data, val=[_item(record) for record in subject.of("test") if _objects(subject, record)])
    ids = {split: [record.id for record in subject.of(split)] for split in ("train", "val", "test")}
    return [
        *review(result.history),
        encoder_unchanged(result.encoder_before, result.encoder_after),
        validation_leak(ids["train"], [item.record for item in data.val], ids["test"]),
        shortcut(
            per_image_iou(broken, on_test, settings),
            per_image_iou(unseeing, blind(on_test), settings),
            rival_iou(on_test, settings),
        ),
        *run_probes(subject.segmenter, broken, subject.of("test"), subject, case.seed),
    ]


def _training_data(case: Case) -> TrainingData:
    subject = case.subject
    train_items = [_item(record) for record in subject.of("train") if _objects(subject, record)]
    val_items = [_item(record) for record in subject.of(case.early_stop) if _objects(subject, record)]
    records = {record.id: record for record in subject.of()}

    def embeddings(items: Sequence[Item]) -> list[Embedding]:
        return [subject.embed(subject.load(records[item.record]), subject.segmenter) for item in items]

    def masks(item: Item) -> BoolArray:
        found = subject.load(records[item.record]).masks
        return found[[bool(mask.any()) for mask in found]]

    return TrainingData(train_items, val_items, embeddings, masks)


def _item(record: Record) -> Item:
    return Item(record.id, record.id)


def _objects(subject: Subject, record: Record) -> bool:
    return bool(subject.load(record).masks.any())


def _fresh(folder: Path) -> Path:
    """An empty folder: every trial trains from its beginning."""
    rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def passed(trials: Sequence[Trial]) -> bool:
    """Whether every fault was named, and no more clean runs raised an alarm than chance allows."""
    clean = [trial for trial in trials if not trial.planted]
    alarmed = sum(not trial.right for trial in clean)
    return all(trial.right for trial in trials if trial.planted) and alarmed <= CHANCE * -(-len(clean) // CLEAN)


def confusion(trials: Sequence[Trial]) -> str:
    """The confusion table as text: what was planted, what had to speak, what spoke, and the clean runs below."""
    lines = [f"{'planted fault':36}{'named by':34}{'right':7}also raised"]
    for trial in trials:
        if trial.planted:
            named = [name for name in trial.alarms if name in trial.expected]
            others = [name for name in trial.alarms if name not in trial.expected]
            wanted = ", ".join(named) or f"NOT by {' or '.join(trial.expected)}"
            lines.append(f"{trial.planted:36}{wanted:34}{'yes' if trial.right else 'NO':7}{', '.join(others) or '-'}")
    faults = [trial for trial in trials if trial.planted]
    clean = [trial for trial in trials if not trial.planted]
    lines += [
        f"clean, seed {t.seed:<24}{'':34}{'yes' if t.right else 'NO':7}{', '.join(t.alarms) or '-'}" for t in clean
    ]
    lines.append(
        f"{sum(t.right for t in faults)} of {len(faults)} faults named by the right check, "
        f"{sum(not t.right for t in clean)} of {len(clean)} clean runs raised an alarm"
    )
    return "\n".join(lines)
