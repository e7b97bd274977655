"""URLs of images that lead to this machine, to its network or to a file: none is fetched, and nothing is dialled."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest
from hostile.attacked import draw_products
from hostile.conftest import Outcome
from hostile.guarded_process import Internet, guarded_service, run_guarded
from image_server import ImageServer
from serving import client

AREA = "URLs"
PUBLIC = "93.184.215.14"
"""A server of this machine stands for it: no test connects to another machine."""

NAMES = {
    "shop.example": [PUBLIC],
    "inside.example": ["10.0.0.1"],
    "here.example": ["127.0.0.1"],
    "two.example": [PUBLIC, "10.0.0.1"],
    "two-families.example": [PUBLIC, "::1"],
    "metadata.example": ["169.254.169.254"],
}

# PORT is that of a server on this machine which no request may reach.
URLS: dict[str, tuple[str, ...]] = {
    "loopback": (
        *(f"http://{host}:PORT/x.jpg" for host in ("127.0.0.1", "127.8.9.1", "localhost", "[::1]")),
        *(f"http://{host}:PORT/x.jpg" for host in ("0.0.0.0", "[::]", "127.1", "0", "here.example")),
    ),
    "link-local addresses and metadata services": (
        "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
        "http://metadata.example/computeMetadata/v1/",
        "http://[fe80::1]/x.jpg",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://168.63.129.16/metadata",
        "http://192.0.0.192/latest/",
        "http://100.100.100.200/latest/meta-data/",
    ),
    "private networks": tuple(
        f"https://{host}/x.jpg" for host in ("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "inside.example")
    ),
    "IPv4 addresses within IPv6 ones": tuple(
        f"http://[{host}]:PORT/x.jpg"
        for host in ("::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::")
    ),
    "decimal, octal and hexadecimal addresses": tuple(
        f"http://{host}:PORT/x.jpg"
        for host in ("2130706433", "017700000001", "0177.0.0.1", "0x7f000001", "0x7f.1", "2852039166", "①②⑦.0.0.1")
    ),
    "names that lead to a public and a private address": (
        "http://two.example:PORT/x.jpg",
        "http://two-families.example:PORT/x.jpg",
    ),
    "a host that another part of the URL hides": (
        "http://shop.example@127.0.0.1:PORT/x.jpg",
        "http://shop.example:80@127.0.0.1:PORT/x.jpg",
        "http://127.0.0.1:PORT#@shop.example/x.jpg",
        "http://127.0.0.1:PORT?@shop.example/x.jpg",
        "http://shop.example\\@127.0.0.1:PORT/x.jpg",
        "hTTp://127.0.0.1:PORT/x.jpg",
    ),
    "redirects to all of these": (
        *(
            f"http://shop.example/r.jpg?to=http://{host}:PORT/x.jpg"
            for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "two.example", "here.example")
        ),
        "http://shop.example/r.jpg?to=http://169.254.169.254/latest/",
        "http://shop.example/r.jpg?to=//127.0.0.1:PORT/x.jpg",
    ),
}
# Of these, ingest reads those that are paths on this machine: a manifest may name any file.
SCHEMES = (
    "ftp://127.0.0.1:PORT/x.jpg",
    "sftp://127.0.0.1:PORT/x.jpg",
    "smb://127.0.0.1:PORT/x.jpg",
    "webdav://127.0.0.1:PORT/x.jpg",
    "root://127.0.0.1:PORT/x.jpg",
    "dask://127.0.0.1:PORT/x.jpg",
    "simplecache::http://127.0.0.1:PORT/x.jpg",
    "blockcache::simplecache::http://127.0.0.1:PORT/x.jpg",
    "zip://x.jpg::http://127.0.0.1:PORT/x.zip",
    "generic::http://127.0.0.1:PORT/x.jpg",
    "reference://x.jpg::REFERENCES",
    "reference://x.jpg::file://REFERENCES",
    "reference::file://REFERENCES",
)
REDIRECTS_TO_A_SCHEME = tuple(
    f"http://shop.example/r.jpg?to={url}"
    for url in ("file:///etc/passwd", "ftp://127.0.0.1:PORT/x", "gopher://127.0.0.1/")
)


class Web(NamedTuple):
    """A server that stands for a public one, and one that no request may reach."""

    shop: ImageServer
    trap: ImageServer
    folder: Path

    def assert_untouched(self) -> None:
        """No request has reached the trap since the last call."""
        requests = [*self.trap.requests]
        self.trap.requests.clear()
        assert not requests

    @property
    def internet(self) -> Internet:
        return Internet(NAMES, {PUBLIC: self.shop.server_port})

    def write(self, url: str) -> str:
        """Return a URL with the port of the trap, and the path of the references to it."""
        return url.replace("PORT", str(self.trap.server_port)).replace("REFERENCES", str(self.folder / "references"))


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    web = Web(ImageServer(), ImageServer(), tmp_path_factory.mktemp("urls"))
    uris = [web.write(url) for url in SCHEMES if url.startswith("reference")]
    keys = {name for uri in uris for name in (uri, uri.removeprefix("reference://"), "x.jpg")}
    references = {key: [f"http://127.0.0.1:{web.trap.server_port}/x.jpg", 0, 9] for key in keys}
    (web.folder / "references").write_text(json.dumps(references))
    for server in (web.shop, web.trap):
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield web
    for server in (web.shop, web.trap):
        server.shutdown()
        server.server_close()


def test_ingest_fetches_no_private_address(web: Web, outcome: Outcome) -> None:
    """All URLs in one manifest, and a public one, which is stored."""
    refused = {web.write(url): name for name, urls in URLS.items() for url in urls}
    refused |= dict.fromkeys(map(web.write, SCHEMES), "schemes")
    schemes = [*map(web.write, REDIRECTS_TO_A_SCHEME)]
    good = "http://shop.example/good.jpg"
    rows = [{"product_id": f"p{number}", "image": url} for number, url in enumerate([*refused, *schemes, good])]
    (web.folder / "urls.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run = run_guarded(
        *("ingest", "urls.jsonl", "--encoder", "pixels", "--report", "report.jsonl", "--json", "--no-progress"),
        cwd=web.folder,
        internet=web.internet,
    )
    events = [json.loads(line) for line in (web.folder / "report.jsonl").read_text().splitlines()]
    reasons = {event["image"]: event["reason"] for event in events if event["event"] == "rejected"}
    assert [event["image"] for event in events if event["event"] == "new"] == [good], run.stderr
    assert {*reasons} == {*refused, *schemes}
    for url, reason in reasons.items():
        expected = "only http:// and https:// are fetched" if url in schemes else "add --allow-private-urls"
        assert expected in reason, (url, reason)
    web.assert_untouched()
    assert not run.report.dialled
    assert {*run.report.routed} == {PUBLIC}
    for name in URLS:
        outcome(AREA, f"in a manifest: {name}", "rejected with the reason; nothing is dialled")
    outcome(AREA, "in a manifest: ftp, smb, webdav and other schemes, chains of them, lists of references", "as above")


def test_the_service_fetches_no_private_address(web: Web, outcome: Outcome) -> None:
    """Neither for a search, nor for an image of a product."""
    draw_products(web.folder / "photos")
    options = ("--encoder", "pixels", "--uri", "shop.db")
    assert run_guarded("ingest", "photos", "--layout", "{product_id}/{image}", *options, cwd=web.folder).status == 0
    files = ("file:///etc/passwd", "/etc/passwd", "photos/red/1.png", "data:image/png;base64,AAAA", *SCHEMES)
    others = [web.write(url) for url in (*files, *REDIRECTS_TO_A_SCHEME)]
    with (
        guarded_service(web.folder, "--uri", "shop.db", "--fetch-urls", internet=web.internet) as child,
        client(child.address) as http,
    ):
        good = {"image_url": "http://shop.example/good.jpg"}
        assert http.post("/search", json=good).status_code == 200
        for url in [*map(web.write, (url for urls in URLS.values() for url in urls)), *others]:
            response = http.post("/search", json={"image_url": url})
            assert response.status_code == 422, url
            detail = response.json()["detail"]
            assert "send the image itself instead" in detail, (url, detail)
            assert not any(address in detail for name, to in NAMES.items() if name in url for address in to), detail
            assert http.put("/products/p", json={"images": [{"image_url": url}]}).status_code == 422
        assert http.post("/search", json=good).status_code == 200
    web.assert_untouched()
    for name in (*URLS, "files, and schemes other than http"):
        outcome(AREA, f"in `image_url` of a request: {name}", "refused (422); nothing is dialled, no address is named")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:PORT/x.jpg", "http://two.example:PORT/x.jpg", "http://0x7f.1:PORT/x"]
)
def test_search_fetches_no_private_address(web: Web, outcome: Outcome, url: str) -> None:
    run = run_guarded("search", web.write(url), "--uri", "shop.db", cwd=web.folder, internet=web.internet)
    assert run.status == 2, run.stderr
    assert "public address" in run.stderr
    web.assert_untouched()
    assert not run.report.dialled
    outcome(AREA, "in `lookalike search URL`: loopback, two addresses, hexadecimal", "refused; nothing is dialled")
