"""What a caller or a shopper reads names no command, option, variable, path or address of the shop's server."""

import ast
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import httpx2
import pytest
import structlog
from conftest import bring
from make_tiny_clip import draw
from serving import client, draw_noise, listening, service_for

import lookalike.serve.client
from lookalike.encode.fetch.errors import FetchFailed
from lookalike.encode.models.pixels import PixelEncoder
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.errors import LookalikeError, StoreUnavailable
from lookalike.schema.milvus.store import Store
from lookalike.serve.api.problems import describe_error

PACKAGE = Path(lookalike.__file__).parent
OF_THE_SERVER = re.compile(r"\blookalike [a-z]+\b|(?<![\w-])--[a-z][\w-]*|\b(MILVUS|LOOKALIKE|RAY)_[A-Z]+|\blog\b")

# The errors whose message a caller reads. All others have one public text for each status.
READ_BY_CALLERS = {
    "BadQuery",
    "BadFilter",
    "BadImage",
    "BadRow",
    "UnknownProduct",
    "DeadlineExceeded",
    "FetchFailed",
    "AddressRefused",
    "TransientFailure",
    "RequestRefused",
}
# Never run by a service: the command line, the Python API, Towhee, and the client, which runs at the caller.
ELSEWHERE = (
    "cli.py",
    "api/",
    "stack/",
    "serve/client/",
    "serve/cli.py",
    "search/cli.py",
    "search/command/",
    "encode/towhee/",
)
# Their BadImage is an ingest's; the service replaces it in runtime/thumbnails and runtime/product_service.
OF_AN_INGEST = ("ingest/", "encode/decode_pool.py", "encode/fetch/query_image.py")


def list_messages() -> Iterator[tuple[str, str]]:
    """List where each error that a caller may read is made, with the literal text of its public message."""
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if name.startswith((*ELSEWHERE, *OF_AN_INGEST)):
            continue
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in READ_BY_CALLERS:
                public = [keyword.value for keyword in call.keywords if keyword.arg == "public"]
                texts = [
                    node.value
                    for part in public or call.args
                    for node in ast.walk(part)
                    if isinstance(node, ast.Constant) and isinstance(node.value, str)
                ]
                yield f"{name}:{call.lineno}", "…".join(texts)


def test_no_message_that_a_caller_reads_names_the_server() -> None:
    messages = dict(list_messages())
    assert len(messages) > 60
    assert [f"{where}: {text}" for where, text in messages.items() if OF_THE_SERVER.search(text)] == []


def test_no_page_names_a_command() -> None:
    for file in [*(PACKAGE / "serve/web/templates").iterdir(), PACKAGE / "serve/web/static/page.js"]:
        text = re.sub(r"<script.*?</script>|class=\"[^\"]*\"", "", file.read_text(), flags=re.DOTALL)
        assert not re.search(r"<code>|\blookalike [a-z]+\b(?! *·)", text.replace("lookalike</a>", "")), file.name


def all_errors(kind: type[LookalikeError] = LookalikeError) -> Iterator[type[LookalikeError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from all_errors(child)


@pytest.mark.parametrize("kind", dict.fromkeys(all_errors()))
def test_every_error_reaches_a_caller_in_words_for_a_caller(kind: type[LookalikeError]) -> None:
    secret = "run lookalike ingest /srv/shop --uri http://10.0.0.1:19530, or set MILVUS_TOKEN"
    error = kind.__new__(kind)
    LookalikeError.__init__(error, secret, public="try something else")
    problem = describe_error(error)
    assert secret not in problem.detail
    assert not OF_THE_SERVER.search(problem.detail)
    # Without words for a caller there is a fixed text, or the message is one of those that are checked above.
    LookalikeError.__init__(error, secret)
    assert describe_error(error).detail != secret or kind.__name__ in READ_BY_CALLERS


class Shop(NamedTuple):
    """A service whose collection and files are in a folder with a name that no response may have."""

    http: httpx2.Client
    folder: Path
    photo: Path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder, encoder = tmp_path_factory.mktemp("secretfolder"), PixelEncoder()
    for colour in ("red", "green"):
        (folder / "photos" / colour).mkdir(parents=True)
        draw(colour, "circle", Random(1)).save(folder / "photos" / colour / "1.png")
    with Store.create(str(folder / "x.db"), encoder.fingerprint) as store:
        bring(FolderSource(folder / "photos", Layout("{product_id}/{image}")).images(), encoder, store)
        uploads = folder / "uploads"
        uploads.write_text("a file where the folder of uploads should be")
        with listening(service_for(store, encoder, uploads)) as address, client(address) as http:
            yield Shop(http, folder, folder / "photos" / "green" / "1.png")


BAD: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", "/search", {"json": {"text": "a red mug"}}, 422),
    ("POST", "/search", {"json": {"image_url": "http://127.0.0.1/x"}}, 422),
    ("POST", "/search", {"json": {"product_id": "nothing"}}, 404),
    ("POST", "/search", {"json": {"image_id": "nothing"}}, 404),
    ("POST", "/search", {"json": {"vector": [1, 2]}}, 422),
    ("POST", "/search", {"json": {"product_id": "red", "where": {"colour": "x"}}}, 422),
    ("POST", "/search", {"json": {"product_id": "red", "where": {"image": {"lt": "x"}}}}, 422),
    ("POST", "/search", {"files": {"image": b"no image"}}, 422),
    ("POST", "/search", {"content": b"x"}, 415),
    ("POST", "/search/batch", {"json": {"queries": [{"text": "x"}, {"product_id": "nothing"}]}}, 200),
    ("GET", "/products/nothing", {}, 404),
    ("GET", "/products/nothing/similar", {}, 404),
    ("GET", "/products/red/similar?where=colour+%3D+x", {}, 422),
    ("GET", "/images/nothing", {}, 404),
    ("PUT", "/products/new", {"files": {"image": draw_noise((9, 9))}}, 500),
    ("PUT", "/products/new", {"json": {"metadata": {}}}, 404),
    ("DELETE", "/products/nothing", {}, 404),
    ("GET", "/products/red", {"headers": {"host": "shop.example"}}, 403),
    ("GET", "/?text=a+mug", {}, 422),
    ("GET", "/?product=nothing", {}, 404),
    ("GET", "/?f.colour=x", {}, 422),
    ("GET", "/?image=0123", {}, 410),
    ("POST", "/", {"files": {"upload": b"no image"}}, 422),
]


@pytest.mark.parametrize(("method", "address", "sent", "status"), BAD)
def test_a_response_reveals_nothing_of_the_server(
    shop: Shop, method: str, address: str, sent: dict[str, Any], status: int
) -> None:
    response = shop.http.request(method, address, **sent)
    assert response.status_code == status, response.text
    for text in ("secretfolder", "x.db", "lookalike ingest", "lookalike reindex", "--uri", "--encoder", "LOOKALIKE_"):
        assert text not in response.text


def test_the_operator_reads_in_the_log_what_the_caller_does_not(shop: Shop) -> None:
    with structlog.testing.capture_logs() as log:
        assert "encodes images but no text; search by an image" in shop.http.post("/search", json={"text": "a"}).text
        queries = {"queries": [{"text": "a"}]}
        assert "encodes images but no text; search by an image" in shop.http.post("/search/batch", json=queries).text
        shop.http.put("/products/new", files={"image": draw_noise((9, 9))})
        moved = shop.photo.rename(shop.photo.with_suffix(".moved"))
        [image] = shop.http.get("/products/green").json()["images"]
        response = shop.http.get(image["url"])
        moved.rename(shop.photo)
        shop.http.get("/products/red", headers={"host": "shop.example"})
    assert response.json()["detail"] == f"the file of image {image['image_id']!r} is missing or is no longer an image"
    text = json.dumps(log)
    assert text.count("lookalike ingest SOURCE --encoder clip") == 2
    assert "cannot write to --uploads" in text
    assert "No such file" in text
    assert "set LOOKALIKE_API_KEYS" in text


def test_an_error_keeps_both_texts_when_it_is_sent_to_another_process() -> None:
    for error in (StoreUnavailable("a", public="b"), FetchFailed("a", public="b")):
        other = pickle.loads(pickle.dumps(error))
        assert (str(other), other.public) == ("a", "b")
