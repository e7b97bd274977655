"""Random histories of a catalogue, with kills in between."""

from history_machine import try_histories
from hostile.conftest import Outcome

HISTORIES = 200


def test_after_any_history_the_collection_equals_a_fresh_ingest(outcome: Outcome) -> None:
    try_histories(HISTORIES)
    outcome(
        "Catalogue histories",
        f"{HISTORIES} random histories: photos added, edited, renamed, moved and removed, metadata changed, the folder "
        "moved, the encoder switched, rolled back, ingest and reindex killed",
        "after each `ingest --prune` the rows equal those of a fresh ingest, vectors included",
    )
