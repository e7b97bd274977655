"""The options that every command of this package takes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lookalike.schema.milvus.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionOptions:
    """--uri, --token and --collection."""

    uri: str
    token: str
    collection: str

    def open_store(self) -> "Store":
        """Open the collection. Raises BadSettings where there is none, StoreUnavailable."""
        from lookalike.schema.milvus.store import Store

        return Store.open(self.uri, token=self.token, collection=self.collection)
