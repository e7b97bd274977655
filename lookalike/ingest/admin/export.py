"""Export a collection to a file, in the format that its suffix names."""

from pathlib import Path

from lookalike.ingest.admin.export_file import check_suffix
from lookalike.schema.milvus.store import Store


def export_collection(store: Store, path: Path) -> int:
    """Write every row to a .parquet file (with vectors), or a .csv or .jsonl file (without); return how many.

    The file gets its name when it is complete. Raises BadSettings when it cannot be written.
    """
    suffix = check_suffix(path)
    if suffix == ".parquet":
        from lookalike.ingest.admin.parquet import export_rows

        return export_rows(store, path)
    from lookalike.ingest.admin.text_export import export_csv, export_json_lines

    return (export_csv if suffix == ".csv" else export_json_lines)(store, path)
