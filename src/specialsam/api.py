"""The jobs of the command line as Python functions: paths and settings in, a folder with its page and tables out.

Each goes on with an earlier call of the same folder. Settings are nested values by the names that `--set` takes, for
example `{"train": {"epochs": 4}, "views": "flip"}`. Under `torchrun` the main process alone gets an answer, the others
get None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from specialsam.core.settings import parse_settings

if TYPE_CHECKING:
    from specialsam.pipeline.advise import Advised
    from specialsam.pipeline.audit import Audited
    from specialsam.pipeline.measure import Measured
    from specialsam.pipeline.specialize import Outcome

Settings = Mapping[str, object]
Where = str | Path


def specialize(
    source: Where,
    model: Where = "nano",
    out: Where | None = None,
    settings: Settings | None = None,
    *,
    base: str | None = None,
    store: Where | None = None,
    limit: int | None = None,
    device: str = "auto",
    trust_base: bool = False,
) -> Outcome | None:
    """Measure `model` on the masks in `source`, tune its decoder, measure again on the same prompts, and report.

    `out` is the run folder (runs/SOURCE-MODEL where left out); the specialist is in its folder `specialist`, the page
    is its `report.html`. `store` shares embeddings between runs, `limit` uses a stable subset of so many images.
    """
    from specialsam.pipeline.job import Request
    from specialsam.pipeline.settings import SpecializeSettings
    from specialsam.pipeline.specialize import run_folder, run_specialize

    folder = run_folder(str(source), str(model), _path(out))
    kept = _path(store)
    request = Request(str(source), str(model), folder, base, kept, limit, device=device, trust_base=trust_base)
    return run_specialize(request, SpecializeSettings.parse(settings or {}))


def evaluate(
    source: Where,
    models: Sequence[Where],
    out: Where,
    settings: Settings | None = None,
    *,
    split: Literal["test", "val", "train", "all"] = "test",
    base: str | None = None,
    store: Where | None = None,
    device: str = "auto",
    trust_base: bool = False,
) -> Measured | None:
    """Measure any models on the same images of one split and the same prompts, with trivial rivals and intervals.

    `base` is the model that files, decoders and adapters among them are of or are put on, as for `load_model`.
    """
    from specialsam.data.read_settings import reading_of
    from specialsam.evaluation.evaluate import EvaluateSettings
    from specialsam.pipeline.measure import Comparison, run_evaluate

    named = [str(model) for model in models]
    given = dict(settings or {})
    asked = Comparison(
        str(source),
        named,
        Path(out),
        split,
        store=_path(store),
        device=device,
        trust_base=trust_base,
        data=reading_of(given),
        base=base,
    )
    return run_evaluate(asked, parse_settings(EvaluateSettings, given))


def audit(
    source: Where,
    model: Where = "nano",
    out: Where | None = None,
    settings: Settings | None = None,
    *,
    believed: int | None = None,
    device: str = "auto",
) -> Audited:
    """Look for what spoils a tuning before it starts; the findings, and where the page is.

    `believed` is the number of images with objects that you believe to have.
    """
    from specialsam.pipeline.audit import run_audit
    from specialsam.pipeline.job import Request, job_folder
    from specialsam.pipeline.settings import SpecializeSettings

    folder = _path(out) or job_folder("audit", str(source))
    request = Request(str(source), str(model), folder, believed=believed, device=device)
    return run_audit(request, SpecializeSettings.parse(settings or {}))


def advise(
    source: Where,
    model: Where = "nano",
    out: Where | None = None,
    settings: Settings | None = None,
    pilots: Settings | None = None,
    *,
    device: str = "auto",
) -> Advised:
    """Is specialising worth it? Pilot runs and a forecast with its interval: GO, NO-GO or UNSURE."""
    from specialsam.pipeline.advise import run_advise
    from specialsam.pipeline.job import Request, job_folder
    from specialsam.pipeline.pilots import PilotSettings
    from specialsam.pipeline.settings import SpecializeSettings

    request = Request(str(source), str(model), _path(out) or job_folder("advise", str(source)), device=device)
    chosen = parse_settings(PilotSettings, pilots or {})
    return run_advise(request, SpecializeSettings.parse(settings or {}), chosen)


def _path(place: Where | None) -> Path | None:
    return None if place is None else Path(place)
