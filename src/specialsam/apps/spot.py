"""`specialsam spot`: hidden animals in folders of photographs, for people who then look where it says.

Out come marked pictures, crops and a contact sheet (spot.html), MegaDetector results with a side file of masks, Camtrap
DP tables and a spreadsheet: what a biologist's other tools read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from specialsam import __version__
from specialsam.apps.answering import Answered, answer_all
from specialsam.apps.answers import Answer
from specialsam.apps.camtrap import Survey, write_package
from specialsam.apps.marks import files_of, save_pictures
from specialsam.apps.megadetector import write_masks, write_results
from specialsam.apps.segment import FILES, Order, folder, look_up, ready, spread_by, told
from specialsam.apps.session import Asking, Session
from specialsam.apps.sheet import write_csv, write_sheet
from specialsam.core.console import say
from specialsam.core.files import keep_only
from specialsam.core.geometry import ImageArray

CATEGORIES = {"1": "animal", "2": "person", "3": "vehicle"}
"""MegaDetector's."""


@dataclass(frozen=True)
class Spotted:
    """What a run leaves: the answers, and the contact sheet's first page."""

    answered: Answered
    page: Path


def spot(session: Session, order: Order, how: Asking, title: str = "Look here first") -> Spotted:
    """Look through all photographs of an order and write everything into its folder.

    Goes on where an earlier call stopped, to the picture; a photograph that changed under its name is looked at anew.
    """
    files, out, whole = look_up(order), order.out, order.out.absolute()
    session = ready(session, order, files)
    with folder(order, "spot", session, how):

        def save(image: ImageArray, answer: Answer) -> None:
            save_pictures(image, answer, whole)

        answered = answer_all(session, files, how, out, save, spread_by(order))
        name, now = f"specialsam {__version__}, {session.segmenter.name}", datetime.now(UTC)
        write_results(answered, out / "megadetector.json", name, CATEGORIES, now.strftime("%Y-%m-%d %H:%M:%S"))
        write_masks(answered, out / "megadetector-masks.json")
        for note in write_package(answered, out / "camtrap-dp", Survey(now.isoformat(timespec="seconds"), name)):
            say(f"note: Camtrap DP: {note}")
        write_csv(answered, out / "objects.csv")
        keep_only(out, (name for answer in answered for name in files_of(answer)), FILES)
        page = write_sheet(answered, out, title, _facts(session, order, how), files.files)
    say(told(answered))
    return Spotted(answered, page)


def _facts(session: Session, order: Order, how: Asking) -> dict[str, str]:
    facts = {"Model": session.segmenter.name, "Date": datetime.now(UTC).strftime("%Y-%m-%d")}
    if order.prompts is not None:
        facts["Asked by"] = f"the boxes of {order.prompts.name}; scores are the decoder's own estimate of the IoU"
        return facts
    if session.parts.finder is None:
        facts["Found by"] = "a grid of points: this model knows no domain, its scores say only how sure a mask is"
    else:
        facts["Found by"] = "the specialist's finder; a score is the probability that an object is there"
    facts["Shown from"] = f"{session.threshold(how):.2f}"
    if how.false_alarms is not None and session.card is not None:
        good = len(session.card.alarm.good_scores)
        facts["Promise"] = f"of pictures of nothing at most {how.false_alarms:.1%} show anything ({good} set it)"
    return facts
