"""Training settings searched on stored embeddings: short trials, judged on validation, none of the test split.

Trials are drawn by Optuna (Akiba et al. 2019; tree-structured Parzen estimators) and stopped early where others did
better after as many epochs (asynchronous successive halving, Li et al. 2020). The first trial is the settings as they
were given, so that the winner is never worth less on validation. The gain of a winner is optimistic; what it is worth
is estimated by choosing and measuring on different images over and over (bootstrap bias correction, Tsamardinos et al.
2018).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from specialsam.core.console import duration, say, stage
from specialsam.core.errors import UsageError
from specialsam.core.ledger import digest
from specialsam.evaluation.results import save_table
from specialsam.evaluation.statistics import Interval, points
from specialsam.models.specialist import ENCODER_MODES, clone
from specialsam.training.loop import per_image_iou, train
from specialsam.training.losses import MIXES
from specialsam.training.settings import TrainSettings
from specialsam.training.state import EpochFacts, TrainingData

if TYPE_CHECKING:
    import optuna

    from specialsam.advice.guard.mixtures import Measure
    from specialsam.pipeline.job import Job

FOLDER, JOURNAL, TABLE = "search", "trials.log", "search.csv"
FEWEST = 8
"""Validation images below which nothing is searched: the winner would be chosen by chance."""
PROMPTS: dict[str, dict[str, float]] = {
    "clicks": {"random": 0.5, "interior": 0.3, "points3": 0.2},
    "boxes": {"box_jitter": 0.7, "random": 0.3},
    "even": {"random": 0.25, "interior": 0.25, "box_jitter": 0.25, "points3": 0.25},
}
LOSSES = tuple(MIXES)
GIVEN = "as given"
SEARCHED = ("lr", "mode", "epochs", "corrections", "anchor", "replay")
"""Settings that are searched by their values; loss and prompts are searched by name."""
TELLING = 10
"""Trials that came to their end below which nothing is said of which setting mattered."""
REPEATS = 2000


@dataclass(frozen=True)
class Searched:
    """What a search has found.

    `train` are the winner's settings; `trials` has a line a trial; `importance` sums to 1 over the settings that were
    searched; `seen` is the winner's gain on validation over the given settings, `corrected` without its optimism.
    """

    train: TrainSettings
    trials: pd.DataFrame
    importance: Mapping[str, float]
    seen: Interval
    corrected: Interval
    says: str


def suggested(trial: optuna.Trial, given: TrainSettings) -> TrainSettings:
    """The settings of one trial: all that `given` says but what is searched."""
    choose = trial.suggest_categorical
    drawn = {
        "lr": trial.suggest_float("lr", min(5e-5, given.lr), max(2e-3, given.lr), log=True),
        "mode": choose("mode", sorted({"decoder", "decoder+prompt", "lora", given.mode})),
        "epochs": choose("epochs", sorted({4, 8, 16, given.epochs})),
        "corrections": choose("corrections", sorted({0, 1, 2, given.corrections})),
        "anchor": choose("anchor", sorted({0.0, 10.0, 30.0, given.anchor})),
        "replay": choose("replay", sorted({0.5, 1.0, 2.0, given.replay} if given.replay else {0.0})),
    }
    loss, prompts = choose("loss", [GIVEN, *LOSSES]), choose("prompts", [GIVEN, *PROMPTS])
    drawn |= {} if loss == GIVEN else {"loss": loss}
    return given.model_copy(update=drawn | ({} if prompts == GIVEN else {"prompts": PROMPTS[prompts]}))


def search(job: Job, data: TrainingData, retention: Measure | None) -> Searched:
    """Try settings for `search.minutes`, and choose; a second call goes on.

    A trial is worth its validation IoU at its best epoch, less what it loses on general images (`retention`) beyond
    `guard.allowed_loss`: both are IoU.
    """
    settings, place = job.settings, job.place
    if settings.train.mode in ENCODER_MODES:
        raise UsageError("expected a mode that leaves the encoder frozen for --search: its trials share the embeddings")
    if len(data.val) < FEWEST:
        raise UsageError(f"expected at least {FEWEST} validation images to search on, got {len(data.val)}")
    trials = _Trials(job, data, retention)
    with stage("searching settings") as progress:
        while place.first(trials.begin):
            trials.run()
            if place.main:
                progress(*trials.spent(), trials.best_line())
    return place.first(trials.result)


class _Trials:
    """The trials of one search; the main process draws and judges, all of them train."""

    def __init__(self, job: Job, data: TrainingData, retention: Measure | None):
        self.job, self.data = job, data
        self.given, self.settings = job.settings.train, job.settings.search
        self.folder = job.folder / FOLDER
        self.before = retention(job.segmenter) if retention else None
        self.retention = retention
        self.study = self._study() if job.place.main else None
        self.trial: optuna.Trial | None = None

    def _study(self) -> optuna.Study:
        """The study in the folder, or a new one whose first trial is the given settings."""
        library = _optuna()
        self.folder.mkdir(exist_ok=True)
        storage = library.storages.JournalStorage(
            library.storages.journal.JournalFileBackend(str(self.folder / JOURNAL))
        )
        study: optuna.Study = library.create_study(
            storage=storage,
            study_name="search",
            direction="maximize",
            load_if_exists=True,
            sampler=library.samplers.TPESampler(seed=self.settings.seed, multivariate=True),
            pruner=library.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        )
        if not study.trials:
            own = {name: getattr(self.given, name) for name in SEARCHED}
            study.enqueue_trial(own | {"loss": GIVEN, "prompts": GIVEN})
        for trial in study.trials:
            if trial.state == library.trial.TrialState.RUNNING:  # killed: begun again with what it has learned
                study.tell(trial.number, state=library.trial.TrialState.FAIL)
                study.enqueue_trial(trial.params)
        return study

    def spent(self) -> tuple[int, int]:
        """Whole seconds of finished trials, and those that may be spent."""
        assert self.study is not None
        done = [trial.duration.total_seconds() for trial in _ended(self.study)]
        return round(min(sum(done), 60 * self.settings.minutes)), round(60 * self.settings.minutes)

    def begin(self) -> bool:
        """Draw the next trial; False where time or trials are used up."""
        assert self.study is not None
        finished, (done, limit) = _ended(self.study), self.spent()
        if finished and (done >= limit or len(finished) >= self.settings.trials):
            return False
        self.trial = self.study.ask()
        self.drawn = suggested(self.trial, self.given)
        return True

    def run(self) -> None:
        """Train the trial in every process, and tell the study what it was worth."""
        job, place = self.job, self.job.place
        drawn = place.first(lambda: self.drawn)
        own = self.folder / digest(drawn.model_dump(mode="json"))[:12]
        own.mkdir(exist_ok=True)
        tuned = clone(job.segmenter, "trial")
        pruned = False

        def watch(history: list[EpochFacts]) -> tuple[list[str], bool]:
            nonlocal pruned
            pruned = place.first(partial(self._stopped, history))
            return [], pruned

        result = train(tuned, self.data, drawn, own, place, watch=watch)
        if pruned:
            if place.main:
                self._tell(None, own)
            return
        ious = per_image_iou(tuned, self.data, drawn, place.spread)
        lost = 0.0
        if self.retention and self.before is not None:
            lost = float(np.mean(self.before)) - float(np.mean(self.retention(tuned)))
        if place.main:
            assert self.trial is not None
            self.trial.set_user_attr("ious", [round(value, 6) for value in ious])
            self.trial.set_user_attr("facts", {"best_epoch": result.best_epoch, "lost": lost, "folder": own.name})
            worth = float(np.mean(ious)) - max(0.0, lost - job.settings.guard.allowed_loss)
            self._tell(worth, own)

    def _stopped(self, history: list[EpochFacts]) -> bool:
        assert self.trial is not None
        self.trial.report(max(facts.val_iou for facts in history), history[-1].epoch)
        return history[-1].epoch < self.drawn.epochs and self.trial.should_prune()

    def _tell(self, worth: float | None, own: Path) -> None:
        """Note what the trial was worth (None: stopped early), and keep the state of the best one alone."""
        assert self.study is not None
        assert self.trial is not None
        state = _optuna().trial.TrialState.PRUNED if worth is None else None
        self.study.tell(self.trial, worth, state=state)
        best = next((t.user_attrs["facts"]["folder"] for t in [_best(self.study)] if t is not None), None)
        for path in self.folder.iterdir():
            if path.is_dir() and path.name != best:
                shutil.rmtree(path)

    def best_line(self) -> str:
        assert self.study is not None
        best = _best(self.study)
        count = len(_ended(self.study))
        return f"{count} trials, the best so far {100 * best.value:.1f}" if best and best.value else f"{count} trials"

    def result(self) -> Searched:
        """The winner and all that is said of it; the table is written, and the winner's state laid in the run."""
        assert self.study is not None
        best = _best(self.study)
        assert best is not None  # the first trial always ends
        chosen = suggested(_optuna().trial.FixedTrial(best.params), self.given)
        state = self.folder / best.user_attrs["facts"]["folder"] / "training.pt"
        if state.exists():
            shutil.copy(state, self.job.folder / "training.pt")
        table = trials_table(self.study)
        save_table(table, self.job.folder / TABLE)
        complete = [trial for trial in self.study.trials if trial.user_attrs.get("ious")]
        ious = np.array([trial.user_attrs["ious"] for trial in complete])
        worth = np.array([trial.value for trial in complete])
        seen, corrected = honest_gain(ious, worth - ious.mean(1), self.settings.seed)
        changed = {name: value for name, value in best.params.items() if value != complete[0].params[name]}
        says = (
            f"{len(table)} trial{'s' * (len(table) != 1)} in {duration(self.spent()[0])}, "
            f"{len(complete)} to their end. "
            f"The best is {points(seen)} IoU points ahead of the given settings on {seen.n} validation images; chosen "
            f"and measured on different images {points(corrected)}. "
            + _worth(worth, ious.mean(1))
            + (f"It has {', '.join(f'{k} {_short(v)}' for k, v in changed.items())}." if changed else "It is as given.")
        )
        say(f"search: {says}")
        return Searched(chosen, table, _importance(self.study), seen, corrected, says)


def _worth(worth: np.ndarray[Any, np.dtype[np.float64]], ious: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    """What the winner is worth beyond the first trial, where that is not its IoU alone."""
    winner = int(np.argmax(worth))
    if np.allclose(worth, ious):
        return ""
    return f"With what is lost elsewhere it is worth {100 * float(worth[winner] - worth[0]):.1f} points more. "


def honest_gain(
    ious: np.ndarray[Any, np.dtype[np.float64]], penalties: np.ndarray[Any, np.dtype[np.float64]], seed: int = 0
) -> tuple[Interval, Interval]:
    """Gain of the winner over the first trial: as it looks on all images, and without the optimism of choosing.

    `ious` (T, N) are those of T trials on N images, `penalties` (T,) are added to a trial's mean. Both intervals come
    from the same resampled images: the first measures all on all, the second chooses the winner on the images drawn and
    measures it on those left out.
    """
    rng = np.random.default_rng(seed)
    count = ious.shape[1]
    seen, held = [], []
    winner = int(np.argmax(ious.mean(1) + penalties))
    for _ in range(REPEATS):
        drawn = rng.integers(0, count, count)
        left = np.setdiff1d(np.arange(count), drawn)
        seen.append(float((ious[winner, drawn] - ious[0, drawn]).mean()))
        if len(left):
            best = int(np.argmax(ious[:, drawn].mean(1) + penalties))
            held.append(float((ious[best, left] - ious[0, left]).mean()))
    limits = (0.025, 0.975)
    (low, high), (least, most) = np.quantile(seen, limits), np.quantile(held, limits)
    gain = float((ious[winner] - ious[0]).mean())
    return Interval(gain, float(low), float(high), count), Interval(
        float(np.mean(held)), float(least), float(most), count
    )


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """A line a trial, the best first: its state, what it was worth, what it lost elsewhere, seconds and parameters."""
    rows = []
    for trial in _ended(study):
        facts = trial.user_attrs.get("facts", {})
        ious = trial.user_attrs.get("ious")
        row = {"trial": trial.number, "state": trial.state.name.lower(), "worth": trial.value}
        row |= {"val_iou": float(np.mean(ious)) if ious else None, "lost": facts.get("lost")}
        rows.append(row | {"seconds": trial.duration.total_seconds()} | trial.params)
    return pd.DataFrame(rows).sort_values("worth", ascending=False, na_position="last", ignore_index=True)


def _ended(study: optuna.Study) -> list[Any]:
    """Trials that came to their end or were stopped early; a killed one is begun again as another."""
    states = _optuna().trial.TrialState
    return [trial for trial in study.trials if trial.state in (states.COMPLETE, states.PRUNED)]


def _best(study: optuna.Study) -> Any:
    """The complete trial that was worth most, the earliest of equals; None before there is one."""
    complete = [trial for trial in study.trials if trial.user_attrs.get("ious") and trial.value is not None]
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def _importance(study: optuna.Study) -> dict[str, float]:
    """How much of the difference between trials each setting explains; empty where there are too few to tell."""
    if sum(bool(trial.user_attrs.get("ious")) for trial in study.trials) < TELLING:
        return {}
    library = _optuna()
    evaluator = library.importance.PedAnovaImportanceEvaluator()
    return {name: float(v) for name, v in library.importance.get_param_importances(study, evaluator=evaluator).items()}


def _short(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UsageError("expected Optuna for --search; pip install 'specialsam[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
