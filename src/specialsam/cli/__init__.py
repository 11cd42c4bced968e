"""The command line: the same nouns as the code, one line for every error, no heavy import before it is needed."""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from typing import Annotated

import typer

from specialsam import __version__
from specialsam.cli import advice, apps, jobs, models, serve, study, synth
from specialsam.core.console import complain, say
from specialsam.core.errors import SpecialSamError, UsageError

DONE, FAILED, WRONG_USE = 0, 1, 2
INTERRUPTED = 130
"""What typer answers with after Ctrl-C."""

app = typer.Typer(
    name="specialsam",
    help="Turn the Segment Anything Model into a specialist for a narrow domain, and tell the truth about whether it "
    "was worth it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(jobs.app)
app.add_typer(apps.app)
app.add_typer(serve.app)
app.add_typer(advice.app)
app.add_typer(models.app)
app.add_typer(models.models_app, name="models")
app.add_typer(study.app, name="study")
app.add_typer(synth.app, name="synth")


def _version(value: bool) -> None:
    if value:
        say(f"specialsam {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; every expected failure is one line and an exit code."""
    debug = "--debug" in sys.argv
    _hear_signals()
    try:
        code = app(standalone_mode=False)  # typer answers with a code where it caught an interrupt or an exit itself
        if code == INTERRUPTED:
            _interrupted()
        sys.exit(code if isinstance(code, int) else DONE)
    except UsageError as error:
        _end(error, WRONG_USE, debug)
    except SpecialSamError as error:
        _end(error, FAILED, debug)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _interrupted()
    except OSError as error:
        place = f"{error.filename} " if error.filename else ""
        hint = "make room on the disk" if error.errno == errno.ENOSPC else "choose another place or its permissions"
        _end(SpecialSamError(f"cannot read or write {place}({error.strerror or error}); {hint}"), FAILED, debug, error)
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "format_message"):
            if message := error.format_message().rstrip("."):  # none where the help was shown for want of arguments
                complain(f"error: {message}; see specialsam --help")
            sys.exit(WRONG_USE)
        _end(error, FAILED, debug)


def _hear_signals() -> None:
    """A polite end (SIGTERM) and a closed terminal (SIGHUP, unless it is ignored as under nohup) are as Ctrl-C."""

    def stop(number: int, place: object) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)


def _interrupted() -> None:
    complain("stopped; what was finished is kept, the same command goes on from there")
    sys.exit(FAILED)


def _end(error: Exception, code: int, debug: bool, cause: Exception | None = None) -> None:
    if debug:
        traceback.print_exception(cause or error)
        sys.exit(code)
    name = "" if isinstance(error, SpecialSamError) else f"unexpected {type(error).__name__}: "
    text = " ".join(str(error).split()) or "no message"
    complain(f"error: {name}{text}" + ("" if isinstance(error, SpecialSamError) else " (--debug shows where)"))
    sys.exit(code)
