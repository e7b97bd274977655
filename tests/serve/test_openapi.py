"""/openapi.json is true: requests generated from it get the responses that it documents."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import schemathesis
from conftest import bring
from hypothesis import HealthCheck, given, settings
from make_tiny_clip import draw
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serving import listening, service_for

from lookalike.encode.models.pixels import PixelEncoder
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.milvus.store import Store


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder, encoder = tmp_path_factory.mktemp("openapi"), PixelEncoder()
    for colour in ("red", "green", "blue"):
        (folder / "photos" / colour).mkdir(parents=True)
        draw(colour, "circle", Random(1)).save(folder / "photos" / colour / "1.png")
    with Store.create(str(folder / "api.db"), encoder.fingerprint) as store:
        bring(FolderSource(folder / "photos", Layout("{product_id}/{image}")).images(), encoder, store)
        with listening(service_for(store, encoder, folder / "uploads")) as address:
            yield schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_response_is_documented(description: Any, mode: GenerationMode) -> None:
    """Valid and invalid requests to every route."""
    routes = [operation.ok() for operation in description.get_all_operations()]
    assert len(routes) >= 10
    for route in routes:
        if mode is GenerationMode.NEGATIVE and not (route.body or route.query or route.path_parameters):
            continue

        @settings(max_examples=30, suppress_health_check=list(HealthCheck))
        @given(case=route.as_strategy(generation_mode=mode))
        def call(case: "Case[Any]") -> None:
            # A schema cannot say which bytes are an image, or which words an encoder knows.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        call()
