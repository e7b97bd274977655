"""Whatever a catalogue went through, its collection equals a fresh ingest."""

import pytest
from history_machine import try_histories


@pytest.mark.slow
def test_after_any_history_the_collection_equals_a_fresh_ingest() -> None:
    try_histories(20)
