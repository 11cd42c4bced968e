"""Does the frozen encoder end the gain? The largest pilot once more, with the end of the encoder tuned as well."""

from __future__ import annotations

from specialsam.core.console import say, stage
from specialsam.core.findings import Finding
from specialsam.evaluation.results import Results
from specialsam.evaluation.statistics import flat, paired_bootstrap, points
from specialsam.pipeline.general import training_data
from specialsam.pipeline.job import Job
from specialsam.pipeline.pilots import (
    PILOT,
    Ground,
    PilotSettings,
    gains_of,
    joined,
    limited,
    measured,
    pilot_training,
    sizes,
    tuned_on,
)

CHECK = "frozen encoder"
WORTH = 0.02
"""IoU that the end of the encoder must surely gain beyond the decoder to be worth two to three times the time."""


def tail_pilot(job: Job, field: Ground, pilot: PilotSettings, largest: Results) -> Finding:
    """The largest pilot's images, seed and epochs with `train.mode` tail, against `largest`, the decoder's results.

    Measured on the same images kept apart. "warn" where the gain beyond the decoder's is surely above WORTH: then the
    frozen encoder is what holds it back, and the remedy says what to set. That it does not is said only where the whole
    interval lies below WORTH.
    """
    settings = job.settings
    own = job.with_training(settings.train.model_copy(update={"mode": "tail"}))
    own.prepare()
    count = sizes(len(job.plan.of("train")), len(field.pool), pilot)[-1]
    chosen = limited(training_data(own), joined(field.pool, count, settings.seed))
    train = pilot_training(own.settings.train, pilot, settings.seed)
    with stage(f"pilot on {count} images, the end of the encoder too") as progress:
        tuned, _ = tuned_on(own, chosen, train, job.folder / "pilots" / f"tail-{count}-{settings.seed}", progress)
    main = settings.evaluate.model_copy(update={"strategies": (settings.main_strategy,), "groups": ("overlap",)})
    with stage(f"measuring it on {len(field.apart)} images kept apart") as progress:
        results = measured(own, tuned, field.apart, main, None, progress)
    decoder, both = gains_of(largest, settings.main_strategy), gains_of(results, settings.main_strategy)
    more = paired_bootstrap(decoder, both, settings.seed)
    says = (
        f"tuning the end of the encoder beside the decoder gains {points(more)} IoU points more than the decoder alone "
        f"({100 * decoder.mean():+.1f}) on {more.n} images kept apart"
    )
    say(f"{PILOT}: {says}")
    numbers = flat("more", more) | {"decoder": float(decoder.mean()), "n": more.n}
    if more.low > WORTH:
        return Finding(CHECK, "warn", says, numbers, (), "set train.mode=tail; tuning takes two to three times as long")
    held = "the frozen encoder does not hold it back"
    unsure = f"whether the frozen encoder holds it back cannot be told on {more.n} images"
    return Finding(CHECK, "pass", f"{says}: {held if more.high <= WORTH else unsure}", numbers)
