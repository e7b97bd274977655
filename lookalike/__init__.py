"""Similar-product search by image, on Milvus.

shop = lookalike.connect("./lookalike.db")
shop.ingest("shop/photos", layout="{category}/{product_id}/{image}")
result = shop.search(image="query.jpg", where={"category": "mug"}, limit=5)

Each name is loaded when it is first used: `import lookalike` imports neither torch nor pymilvus.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0"

__all__ = [
    "Collection",
    "DeleteResult",
    "Hit",
    "Info",
    "LoadedEncoder",
    "LookalikeError",
    "Product",
    "ReindexResult",
    "Result",
    "ServiceCollection",
    "Source",
    "Summary",
    "connect",
    "errors",
    "load_encoder",
]

_LOCATIONS = {
    "Collection": "lookalike.api.collection:Collection",
    "DeleteResult": "lookalike.ingest.admin.deletion:DeleteResult",
    "Hit": "lookalike.schema.product:Hit",
    "Info": "lookalike.api.results.records:Info",
    "LoadedEncoder": "lookalike.api.encoder:LoadedEncoder",
    "LookalikeError": "lookalike.schema.errors:LookalikeError",
    "Product": "lookalike.api.results.records:Product",
    "ReindexResult": "lookalike.ingest.admin.reindex:ReindexResult",
    "Result": "lookalike.api.results.result:Result",
    "ServiceCollection": "lookalike.api.service_collection:ServiceCollection",
    "Source": "lookalike.ingest.admin.sources:Source",
    "Summary": "lookalike.ingest.reports.report:Summary",
    "connect": "lookalike.api.connect:connect",
    "errors": "lookalike.schema.errors",
    "load_encoder": "lookalike.api.encoder:load_encoder",
}

if TYPE_CHECKING:
    from lookalike.api.collection import Collection
    from lookalike.api.connect import connect
    from lookalike.api.encoder import LoadedEncoder, load_encoder
    from lookalike.api.results.records import Info, Product
    from lookalike.api.results.result import Result
    from lookalike.api.service_collection import ServiceCollection
    from lookalike.ingest.admin.deletion import DeleteResult
    from lookalike.ingest.admin.reindex import ReindexResult
    from lookalike.ingest.admin.sources import Source
    from lookalike.ingest.reports.report import Summary
    from lookalike.schema import errors
    from lookalike.schema.errors import LookalikeError
    from lookalike.schema.product import Hit
else:  # with __getattr__ a type checker would accept any name

    def __getattr__(name: str) -> object:
        if name not in _LOCATIONS:
            raise AttributeError(f"module 'lookalike' has no attribute {name!r}")
        module, _, attribute = _LOCATIONS[name].partition(":")
        imported = import_module(module)
        globals()[name] = getattr(imported, attribute) if attribute else imported
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
