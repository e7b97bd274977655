"""Export to Parquet and import: a damaged file is refused by the row that is wrong."""

from pathlib import Path

import pyarrow as pa
import pytest
from conftest import PLAIN, NewStore, a_row
from pyarrow import parquet

from lookalike.ingest.admin.parquet import check_export_file, export_rows
from lookalike.schema.errors import BadSource


def test_a_damaged_row_is_named_by_its_number(new_store: NewStore, tmp_path: Path) -> None:
    file, store = tmp_path / "shop.parquet", new_store(PLAIN)
    store.upsert([a_row(f"{n}.jpg") for n in range(3)])
    assert export_rows(store, file) == 3
    table = parquet.read_table(file)
    index = table.schema.get_field_index("metadata")
    for damaged in range(3):
        values = ["[1]" if n == damaged else "{}" for n in range(3)]
        parquet.write_table(table.set_column(index, table.schema.field(index), pa.array(values)), file)
        with pytest.raises(BadSource, match=rf"row {damaged + 1} is invalid .*the metadata is not an object"):
            check_export_file(file)
    parquet.write_table(table, file)
    assert check_export_file(file) == PLAIN
