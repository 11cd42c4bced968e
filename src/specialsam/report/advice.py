"""The page of the advice: go, no-go or unsure, with the curve, the factors, the fair baseline and what to run next."""

from __future__ import annotations

from pathlib import Path

from specialsam.report.gallery import learning_plate, save_plates, save_sides, sizes_plate
from specialsam.report.learning import needed_sentence
from specialsam.report.numbers import metric_name
from specialsam.report.page import checked, environment, figured, problem_kinds, prompt_note, sides, write_page
from specialsam.report.pages import AdvicePage
from specialsam.report.tables import mean_tables

PILOT = "Pilot"
"""What stands over the pictures of the tuned model: nothing but pilots were tuned."""


def write_advice(page: AdvicePage, path: Path) -> None:
    """Write the page to `path`, whole or not at all. SpecialSamError in one line when it cannot be written."""
    write_page(render_advice(page), path)


def render_advice(page: AdvicePage) -> str:
    """The whole page as text."""
    return (
        environment()
        .get_template("advice.html.j2")
        .render(
            page=page,
            run=page.run,
            data=page.data,
            advice=page.advice,
            curve=figured("curve", learning_plate(page)) if page.curve is not None else None,
            needed=needed_sentence(page.curve) if page.curve is not None else "",
            tables=[(metric_name(metric), groups) for metric, groups in mean_tables(page.baseline, page.base_model)],
            checks=checked(page.findings),
            sides=sides(page.comparisons, PILOT),
            sizes=figured("sizes", sizes_plate(page.data)),
            problem_kinds=problem_kinds(page.data),
            prompt_note=prompt_note(page.prompt_source),
        )
    )


def save_advice_figures(page: AdvicePage, folder: Path) -> tuple[Path, ...]:
    """Write the learning curve and the side-by-side rows as PNG into `folder`; the paths, in order."""
    named = [("learning-curve", learning_plate(page))] if page.curve is not None else []
    return (*save_plates(named, folder), *save_sides(page.comparisons, folder, PILOT))
