"""The parquet index of a store: one row an embedding, made from the shards' headers and never trusted over them."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from specialsam.core.files import write_whole
from specialsam.embeddings.shards import Entry

INDEX = "index.parquet"


def read_index(folder: Path) -> dict[str, list[Entry]]:
    """Entries by shard; empty where there is no index or it cannot be read, for the shards' headers hold the same."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    names = [part.name for part in fields(Entry)]
    try:
        rows = parquet.ParquetFile(folder / INDEX).read().select(names).to_pylist()
        entries = [Entry(**row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, arrow.ArrowException):
        return {}
    out: dict[str, list[Entry]] = {}
    for entry in entries:
        out.setdefault(entry.shard, []).append(entry)
    return out


def write_index(folder: Path, shards: dict[str, list[Entry]], changed: set[str]) -> None:
    """Write the index of `shards`; what another process has written since counts for shards that are not `changed`.

    Raises SpecialSamError where the folder cannot be written.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    mine = {name: entries for name, entries in shards.items() if (folder / f"{name}.safetensors").exists()}
    theirs = {name: entries for name, entries in read_index(folder).items() if name not in changed}
    merged = {**mine, **theirs}
    rows = [asdict(entry) for name in sorted(merged) for entry in merged[name]]
    kinds = {"str": arrow.string(), "int": arrow.int64(), "float": arrow.float64(), "bool": arrow.bool_()}
    kinds["Precision"] = arrow.string()
    schema = arrow.schema([(part.name, kinds[str(part.type)]) for part in fields(Entry)])
    table = arrow.Table.from_pylist(rows, schema=schema)
    write_whole(folder / INDEX, lambda path: parquet.write_table(table, path))
