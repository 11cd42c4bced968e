"""Before anything is tuned: audit the data, and advise whether specialising is worth it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specialsam.cli.options import Base, Config, Debug, Device, Limit, Model, Sets, Store, TrustBase, read_settings
from specialsam.core.console import say, stage
from specialsam.core.errors import SpecialSamError, UsageError

app = typer.Typer()

MaybeSource = Annotated[
    str | None,
    typer.Argument(help="a folder whose layout is recognised, or ADAPTER:PATH", metavar="SOURCE", show_default=False),
]
Believed = Annotated[
    int | None, typer.Option("--expect", help="images with objects that you believe to have; told when it is not so")
]


@app.command()
def audit(
    source: MaybeSource = None,
    model: Model = "nano",
    base: Base = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder [default: runs/audit-NAME]")] = None,
    config: Config = None,
    sets: Sets = None,
    store: Store = None,
    limit: Limit = None,
    expect: Believed = None,
    strict: Annotated[bool, typer.Option("--strict", help="exit code 1 where a check fails")] = False,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="plant every known fault in generated data and show who names it")
    ] = False,
    device: Device = "auto",
    trust_base: TrustBase = False,
    debug: Debug = False,
) -> None:
    """Look for what spoils a tuning before it starts: counts, masks, labels, leaks, prompts, embeddings."""
    if self_test:
        from specialsam.advice.checks.faults import FAULTS
        from specialsam.advice.checks.self_test import CLEAN, confusion, passed, run_self_test

        folder = out or Path("runs/self-test")
        with stage("self-test") as progress:
            trials = run_self_test(folder, list(FAULTS), CLEAN, progress)
        say(confusion(trials))
        if not passed(trials):
            raise SpecialSamError("the self-test failed: a fault was missed, or too many clean runs raised an alarm")
        return
    if source is None:
        raise UsageError("expected SOURCE, a data set to audit, or --self-test; got neither")
    from specialsam.pipeline.audit import run_audit
    from specialsam.pipeline.job import Request, job_folder
    from specialsam.pipeline.settings import SpecializeSettings

    settings = SpecializeSettings.parse(read_settings(config, sets))
    folder = out or job_folder("audit", source)
    done = run_audit(
        Request(source, model, folder, base, store, limit, expect, device=device, trust_base=trust_base), settings
    )
    say(f"page: {done.page}")
    failed = [finding.check for finding in done.findings if finding.level == "fail"]
    if strict and failed:
        raise SpecialSamError(f"{len(failed)} checks failed: {', '.join(failed)}")


@app.command()
def advise(
    source: Annotated[str, typer.Argument(help="a folder whose layout is recognised, or ADAPTER:PATH")],
    model: Model = "nano",
    base: Base = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder [default: runs/advise-NAME]")] = None,
    config: Config = None,
    sets: Sets = None,
    pilots: Annotated[
        list[str] | None, typer.Option("--pilot", help="a setting of the pilots, e.g. wished=0.05; repeatable")
    ] = None,
    store: Store = None,
    limit: Limit = None,
    expect: Believed = None,
    device: Device = "auto",
    trust_base: TrustBase = False,
    debug: Debug = False,
) -> None:
    """Is specialising worth it? Fair baseline, short pilot runs, a forecast with interval: GO, NO-GO or UNSURE."""
    from specialsam.core.settings import parse_settings
    from specialsam.pipeline.advise import advice_text, run_advise
    from specialsam.pipeline.job import Request, job_folder
    from specialsam.pipeline.pilots import PilotSettings
    from specialsam.pipeline.settings import SpecializeSettings

    settings = SpecializeSettings.parse(read_settings(config, sets))
    pilot = parse_settings(PilotSettings, read_settings(None, pilots))
    folder = out or job_folder("advise", source)
    say(
        advice_text(
            run_advise(
                Request(source, model, folder, base, store, limit, expect, device=device, trust_base=trust_base),
                settings,
                pilot,
            )
        )
    )
