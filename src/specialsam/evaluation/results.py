"""Results: the tidy rows of an evaluation, what is asked of them, and how they grow on disk until they are complete.

What is stored of a record and a model is kept for as long as the image, its masks, the model's weights and the settings
are the same; when one of them changes, exactly those are measured again. The protocol's words (run, split, subset) are
put on when rows are read, for they describe the whole and change when images come or go.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from specialsam.core.console import stage
from specialsam.core.errors import DataError
from specialsam.core.files import write_whole
from specialsam.core.ledger import Journal, digest
from specialsam.core.place import Place
from specialsam.core.types import Record, Row
from specialsam.data.content import Content
from specialsam.evaluation import tables
from specialsam.evaluation.evaluate import Measuring, record_rows
from specialsam.models.segmenter import Segmenter

ROWS = 2
"""Version of what a row holds and how it is measured: part of what rows are made from."""
RIVALS = ""
"""Under which the rows of the rivals that look at no pixel are kept: no model has this name."""
STAMP = ("run", "dataset", "split", "subset")
COLUMNS = [field.name for field in fields(Row)]
OWN = [name for name in COLUMNS if name not in STAMP]


@dataclass(frozen=True)
class Results:
    """Tidy rows of any number of models: `frame` has the columns of `core.types.Row`."""

    frame: pd.DataFrame

    def __post_init__(self) -> None:
        missing = [name for name in COLUMNS if name not in self.frame.columns]
        if missing:
            raise DataError(f"expected the columns of results, got a table without {', '.join(missing)}")

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Results:
        return cls(tables.frame(rows))

    @classmethod
    def read(cls, path: Path) -> Results:
        """From a results.parquet; DataError in one line where it is none."""
        try:
            return cls(pd.read_parquet(path))
        except (OSError, ValueError) as error:  # pyarrow's errors are kinds of both
            raise DataError(f"expected results in {path}, got none; run the evaluation again") from error

    def __len__(self) -> int:
        return len(self.frame)

    def __add__(self, other: Results) -> Results:
        return Results(pd.concat([self.frame, other.frame], ignore_index=True))

    def only(self, **wanted: str | Sequence[str]) -> Results:
        """Rows whose columns have the wanted value, or one of the wanted values: `only(model="base", metric="iou")`."""
        kept = self.frame
        for name, values in wanted.items():
            kept = kept[kept[name].isin([values] if isinstance(values, str) else list(values))]
        return Results(kept)

    @property
    def metrics(self) -> set[str]:
        return set(self.frame["metric"])

    def summary(self, metrics: tuple[str, ...] | None = None) -> pd.DataFrame:
        """`tables.summary`: means with intervals."""
        return tables.summary(self.frame, metrics)

    def seed_summary(self) -> pd.DataFrame:
        """`tables.seed_summary` of the single masks: the original study's columns."""
        return tables.seed_summary(self.only(output="single").frame)

    def comparison(self, base: str, tuned: str, metrics: tuple[str, ...] | None = None) -> pd.DataFrame:
        """`tables.comparison`: paired gains with intervals and tests."""
        return tables.comparison(self.frame, base, tuned, metrics)

    def by_category(self, base: str, tuned: str) -> pd.DataFrame:
        """`tables.by_category`."""
        return tables.by_category(self.frame, base, tuned)

    def leads(self, base: str, tuned: str) -> pd.DataFrame:
        """`tables.leads`: tuned against each rival and the base's best of three masks, image by image, in IoU."""
        return tables.leads(self.frame, base, tuned)

    def pairs(self, base: str, tuned: str, strategy: str) -> pd.DataFrame:
        """`tables.pairs`: base against tuned, a line an image."""
        return tables.pairs(self.frame, base, tuned, strategy)

    def save(self, path: Path) -> None:
        """Write a parquet file whole."""
        write_whole(path, lambda beside: self.frame.to_parquet(beside, index=False))


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole."""
    write_whole(path, lambda beside: table.to_csv(beside, index=False))


@dataclass(frozen=True)
class Asked:
    """What is to be measured: `records` and their `content`, and how.

    `stored_at` names the precision of the embeddings that answer.
    """

    records: Sequence[Record]
    content: Mapping[str, Content]
    how: Measuring
    stored_at: str = "live"


def made_from(asked: Asked, record: Record, model: Segmenter | float) -> str:
    """What the rows of a record and a model (or, with their disc's radius, of the rivals) follow from."""
    content = asked.content[record.id]
    who = [model.encoder_id, model.decoder_id] if isinstance(model, Segmenter) else [round(model, 12)]
    settings = asked.how.settings.model_dump(mode="json")
    return digest(ROWS, content.image, content.masks, who, settings, asked.stored_at)


def measure(
    models: Mapping[str, Segmenter], asked: Asked, radius: float | None, file: Path, place: Place, title: str
) -> tuple[Results, int]:
    """Results of all models (and with a `radius` of the rivals) on all records, and how many were measured anew.

    `file` keeps what is finished, image by image; what was made from another image, mask, model or setting is measured
    again, and the count is of such images. The processes of `place` share the records; the main one has the results,
    the others none.
    """
    who: dict[str, Segmenter | float] = {**models, **({} if radius is None else {RIVALS: radius})}
    wanted = {
        _key(name, record): made_from(asked, record, model) for record in asked.records for name, model in who.items()
    }
    journal = Journal(file) if place.main else None
    done, old = place.first(lambda: (journal.finished(wanted), journal.stale(wanted)) if journal else (set(), set()))
    lacking = {record.id: [name for name in who if _key(name, record) not in done] for record in asked.records}
    todo = [record for record in asked.records if lacking[record.id]]

    how = asked.how

    def work(record: Record) -> dict[str, list[list[object]]]:
        chosen = {name: model for name, model in models.items() if name in lacking[record.id]}
        own = radius if RIVALS in lacking[record.id] else None
        rows = record_rows(chosen, record, how, own)
        found: dict[str, list[list[object]]] = {name: [] for name in lacking[record.id]}
        for row in rows:
            found[row.model if row.model in models else RIVALS].append([getattr(row, name) for name in OWN])
        return found

    with stage(title) as progress:
        for number, (record, rows) in enumerate(zip(todo, place.spread(work, todo), strict=True), 1):
            for name, lines in rows.items():
                if journal:
                    journal.put(_key(name, record), wanted[_key(name, record)], lines)
            progress(len(asked.records) - len(todo) + number, len(asked.records), record.id)
    again = sum(any(_key(name, record) in old for name in models) for record in asked.records)
    if journal is None:
        return Results.of([]), again
    journal.forget(wanted)
    return Results(_frame(journal, wanted, asked.how.stamp)), again


def _key(name: str, record: Record) -> str:
    return f"{name}|{record.id}"


def _frame(journal: Journal, wanted: Mapping[str, str], stamp: Mapping[str, str]) -> pd.DataFrame:
    """All wanted rows with the stamp on them; each text is in memory once, however many rows hold it."""
    numbers = {name: array("d") for name in ("object", "value", "soft")}
    texts = {name: _Texts() for name in OWN if name not in numbers}
    for _, lines in journal.answers(wanted):
        for name, values in zip(OWN, zip(*lines, strict=True), strict=False):
            numbers[name].extend(values) if name in numbers else texts[name].extend(values)
    count = len(numbers["value"])
    columns: dict[str, object] = {name: found.column() for name, found in texts.items()}
    columns |= {"object": np.array(numbers["object"], np.int64), "value": np.array(numbers["value"], np.float64)}
    columns["soft"] = np.array(numbers["soft"], np.bool_)
    for name in STAMP:
        columns[name] = pd.Series([stamp.get(name, "")]).repeat(count).astype("category").array
    return pd.DataFrame(columns, columns=COLUMNS)


class _Texts:
    """A column of texts that repeat."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.codes = array("i")

    def extend(self, values: Iterable[str]) -> None:
        self.codes.extend(self.known.setdefault(value, len(self.known)) for value in values)

    def column(self) -> pd.Series[str]:
        kinds = pd.CategoricalDtype(pd.Index(list(self.known), dtype="str"))
        return pd.Series(pd.Categorical.from_codes(self.codes.tolist(), dtype=kinds))
