"""Requests that are malformed, huge, slow, deep or from elsewhere: each is refused quickly, and harms no other."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from hostile.attacked import JSON, Attacked, attacked_shop, connect, draw_png, read_all, send_raw
from hostile.conftest import Outcome

AREA = "Service: requests"
SECONDS = 20
"""Most take milliseconds; the bound is for a busy machine."""

DEEP, BIG = 10_000, 10**6
HEAD = "host: localhost\r\nconnection: close\r\n"

Send = Callable[[httpx2.Client], httpx2.Response]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacked_shop(tmp_path_factory.mktemp("requests"), body_timeout=2.0) as shop:
        yield shop


def search(body: bytes) -> Send:
    return lambda http: http.post("/search", content=body, headers=JSON)


def put(body: bytes) -> Send:
    return lambda http: http.put("/products/red", content=body, headers=JSON)


def similar(**params: Any) -> Send:
    return lambda http: http.get("/products/red/similar", params=params)


def page(**params: Any) -> Send:
    return lambda http: http.get("/", params={"product": "red", **params})


def where(filters: bytes) -> bytes:
    return b'{"product_id":"red","where":' + filters + b"}"


def nested(depth: int, opening: bytes, closing: bytes, inner: bytes = b"") -> bytes:
    return opening * depth + inner + closing * depth


def form(path: str, parts: list[tuple[str, Any]]) -> Send:
    return lambda http: http.post(path, files=parts)


FIELDS = [(f"f{number}", (None, "x")) for number in range(10_000)]
NOT_FINITE = ("NaN", "Infinity", "-Infinity", "1e999")
HUGE = "1" + "0" * 30
ENDLESS = "1" + "0" * 5_000

REFUSED: dict[str, list[tuple[Send, int]]] = {
    "JSON of depth 10,000": [
        (search(nested(DEEP, b"[", b"]")), 422),
        (search(where(nested(DEEP, b'{"not":', b"}", b'{"a":1}'))), 422),
        (put(b'{"metadata":{"a":' + nested(DEEP, b"[", b"]") + b"}}"), 422),
    ],
    "metadata of depth 150, which JSON parsers take": [
        (put(b'{"metadata":{"a":' + nested(150, b"[", b"]") + b"}}"), 422)
    ],
    "NaN and infinity in each place of a query": [
        (search(body % number.encode()), 422)
        for number in NOT_FINITE
        for body in (
            b'{"vector":[%s]}',
            b'{"product_id":"red","min_score":%s}',
            b'{"product_id":"red","within":%s}',
            b'{"like":[{"product_id":"red","weight":%s}]}',
            where(b'{"price":{"lt":%s}}'),
        )
    ],
    "NaN and infinity in metadata": [
        (put(b'{"metadata":{"price":%s}}' % number.encode()), 422) for number in NOT_FINITE
    ],
    "NaN and infinity in the URL": [
        (send, 422)
        for number in NOT_FINITE
        for send in (similar(where=f'{{"price":{{"lt":{number}}}}}'), similar(where=f"price < {number}"))
    ]
    + [(page(**{"min.price": number}), 422) for number in NOT_FINITE],
    "`limit` and `offset` of 10^30 and of 5,000 digits": [
        (send, 422)
        for number in (HUGE, f"-{HUGE}", ENDLESS)
        for name in ("limit", "offset")
        for send in (search(f'{{"product_id":"red","{name}":{number}}}'.encode()), similar(**{name: number}))
    ],
    "a number of 400 and of 10,000 digits in a filter, a weight or metadata": [
        (send, 422)
        for digits in (400, 10_000)
        for number in (b"1" + b"0" * digits,)
        for send in (
            search(where(b'{"price":%s}' % number)),
            search(b'{"like":[{"product_id":"red","weight":%s}]}' % number),
            put(b'{"metadata":{"price":%s}}' % number),
            similar(where=f"price < {number.decode()}"),
        )
    ],
    "a filter of 1 MB: one value": [(search(where(json.dumps({"price": "a" * BIG}).encode())), 422)],
    "a filter of 1 MB: one column": [(search(where(json.dumps({"a" * BIG: 1}).encode())), 422)],
    "a filter of 1 MB: a list of values": [
        (search(where(json.dumps({"price": {"in": list(range(150_000))}}).encode())), 422)
    ],
    "a filter of 1 MB: 90,000 conditions": [
        (search(where(json.dumps(dict.fromkeys(map(str, range(90_000)), 1)).encode())), 422)
    ],
    "a filter of 1 MB: alternatives within alternatives": [
        (search(where(json.dumps({"or": [{"or": [{"or": [{"a": 1}] * 100}] * 30}] * 30}).encode())), 422)
    ],
    "a filter of 60 kB in the URL": [
        (similar(where="a" * 60_000), 422),
        (similar(where="(" * 20_000), 422),
        (similar(where="a = " + "x" * 60_000), 422),
    ],
    "a filter of depth 1,000": [
        (search(where(nested(1_000, b'{"not":', b"}", b'{"a":1}'))), 422),
        (search(where(nested(150, b'{"not":', b"}", b'{"a":1}'))), 422),
        (similar(where="(" * 1_000 + "a = 1" + ")" * 1_000), 422),
        (similar(where="not " * 1_000 + "a = 1"), 422),
        (similar(where=nested(1_000, b'{"not":', b"}", b'{"a":1}').decode()), 422),
    ],
    "a form of 10,000 fields": [
        (form("/search", FIELDS), 400),
        (form("/", FIELDS), 400),
        (lambda http: http.put("/products/red", files=FIELDS), 400),
        (lambda http: http.post("/login", data={name: "x" for name, _ in FIELDS[:1_000]}), 400),
    ],
    "a form of 10,000 files": [(form("/search", [("image", b"x")] * 10_000), 400)],
    "a form field of 5 MB": [(form("/search", [("query", (None, "x" * 5 * BIG))]), 400)],
    "a form part with a header of 1 MB": [
        (
            lambda http: http.post(
                "/search",
                content=b"--x\r\nContent-Disposition: form-data; name=" + b"a" * BIG + b"\r\n\r\nx\r\n--x--",
                headers={"content-type": "multipart/form-data; boundary=x"},
            ),
            400,
        )
    ],
    "a boundary that never comes": [
        (
            lambda http: http.post(
                "/search", content=b"-" * BIG, headers={"content-type": "multipart/form-data; boundary=x"}
            ),
            400,
        )
    ],
}


@pytest.mark.parametrize("attack", REFUSED)
def test_a_request_that_is_too_much_is_refused(shop: Attacked, outcome: Outcome, attack: str) -> None:
    statuses = set()
    for send, expected in REFUSED[attack]:
        started = time.monotonic()
        response = send(shop.http)
        assert time.monotonic() - started < SECONDS
        assert response.status_code == expected, response.text[:1_000]
        assert len(response.content) < 100_000, "the response does not repeat what was sent"
        statuses.add(str(expected))
    shop.assert_unharmed()
    outcome(AREA, attack, f"refused ({', '.join(sorted(statuses))})")


def test_of_a_huge_filter_little_is_read(shop: Attacked, outcome: Outcome) -> None:
    """One request of the size that is allowed may not keep a core busy for minutes."""
    filters = json.dumps({"or": [{"or": [{str(a): 1 for a in range(1_000)}] * 100}] * 20}).encode()
    started = time.process_time()
    assert shop.http.post("/search", content=where(filters), headers=JSON).status_code == 422
    seconds = time.process_time() - started
    assert len(filters) > 19 * BIG
    # Parsing the JSON itself takes about a second; making two million conditions of it would take half a minute.
    assert seconds < 12
    outcome(AREA, "a filter of 20 MB", "refused (422) before its conditions are read")


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def test_chunked_bodies_past_the_limit_are_refused(shop: Attacked, outcome: Outcome) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(2**18)

    for path, limit in (("/search", shop.service.settings.max_body), ("/", shop.service.settings.max_body)):
        sent = 0
        with connect(shop.address) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\n{HEAD}content-type: application/json\r\n".encode())
            connection.sendall(b"content-type: multipart/form-data; boundary=x\r\n" if path == "/" else b"")
            connection.sendall(b"transfer-encoding: chunked\r\n\r\n")
            try:
                for part in endless():
                    connection.sendall(chunk(part))
                    sent += len(part)
                    assert sent < 10 * limit, "the service reads without an end"
            except OSError:
                pass
    a_form = {"content-type": "application/x-www-form-urlencoded"}
    response = shop.http.post("/login", content=(b"a" * 1_000 for _ in range(1_000)), headers=a_form)
    assert response.status_code == 413
    response = shop.http.post("/search", content=(bytes(2**20) for _ in range(60)), headers=JSON)
    assert response.status_code == 413
    shop.assert_unharmed()
    outcome(AREA, "chunked bodies past the limit, and without an end", "refused (413), and the connection is closed")


RAW: dict[str, tuple[list[bytes], set[int]]] = {
    "two lengths, or a length and chunks (request smuggling)": (
        [
            b"content-length: 5\r\ncontent-length: 6\r\n\r\n{}{}{}",
            b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /ready HTTP/1.1\r\nhost: a\r\n\r\n",
            b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ],
        {400, 415, 501},
    ),
    "a length that is negative, huge, or no number": (
        [b"content-length: %s\r\n\r\n" % value for value in (b"-5", b"9" * 1_000, "٣".encode(), b"1e3", b"0x10")],
        {400},
    ),
    "a chunk size that is no number": ([b"transfer-encoding: chunked\r\n\r\nzz\r\n"], {400, 415}),
    "header lines of 100 kB, of no name, with a NUL": (
        [b"x: " + b"a" * 100_000, b": x\r\n\r\n", b"x: a\x00b\r\n\r\n", b"x : y\r\n\r\n"],
        {400},
    ),
    "two Host headers, and none": ([b"host: evil.example\r\n\r\n"], {400}),
}


@pytest.mark.parametrize("attack", RAW)
def test_what_is_not_http_is_refused(shop: Attacked, outcome: Outcome, attack: str) -> None:
    tails, statuses = RAW[attack]
    seen = set()
    for tail in tails:
        status, response = send_raw(shop.address, f"POST /search HTTP/1.1\r\n{HEAD}".encode() + tail)
        assert status in statuses, response
        assert response.count(b"HTTP/1.1 ") == 1, "a smuggled request is not answered"
        seen.add(str(status))
    for content in (
        b"GET /" + b"a" * 100_000,
        b"\x16\x03\x01\x02\x00\x01\x00\xff",
        b"GET /products/\xff HTTP/1.1\r\n\r\n",
    ):
        assert send_raw(shop.address, content)[0] == 400
    shop.assert_unharmed()
    outcome(AREA, attack, f"refused ({', '.join(sorted(seen))})")


def test_a_body_that_breaks_off_leaves_no_traceback(
    shop: Attacked, outcome: Outcome, capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise anyone could fill the log."""
    head = f"POST /search HTTP/1.1\r\n{HEAD}transfer-encoding: chunked\r\n".encode()
    json_head = head + b"content-type: application/json\r\n\r\n"
    for content in (head + b"\r\nzz\r\n", json_head + b"zz\r\n", json_head + b"1\r\n{\r\nzz\r\n"):
        assert send_raw(shop.address, content)[0] == 400
        with connect(shop.address) as connection:
            connection.sendall(content.removesuffix(b"zz\r\n"))
            time.sleep(0.2)
            connection.sendall(b"zz\r\n")
            assert read_all(connection).count(b"HTTP/1.1 4") == 1
    with connect(shop.address) as connection:
        connection.sendall(json_head)
    shop.assert_unharmed()
    captured = capfd.readouterr()
    assert "Traceback" not in captured.out + captured.err
    outcome(AREA, "chunks that become no chunks, and clients that leave", "400, once; no traceback in the log")


def test_slow_headers_are_given_up(shop: Attacked, outcome: Outcome) -> None:
    """Slowloris: connections whose requests never come to an end, one byte at a time."""
    with ExitStack() as stack:
        started = time.monotonic()
        slow = [stack.enter_context(connect(shop.address)) for _ in range(200)]
        again = connect(shop.address)
        stack.enter_context(again).sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert again.recv(2**16).startswith(b"HTTP/1.1 200")
        for connection in (*slow, again):
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
        silent = stack.enter_context(connect(shop.address))
        closed: set[int] = set()
        while len(closed) < len(slow) + 1 and time.monotonic() - started < 60:
            shop.assert_unharmed()
            for number, connection in enumerate((*slow, again)):
                if number not in closed:
                    try:
                        connection.sendall(b"a")
                    except OSError:
                        closed.add(number)
            time.sleep(0.5)
        assert len(closed) == len(slow) + 1, "headers may take as long as they like"
        assert silent.recv(1) == b"", "a connection on which nothing is sent is closed too"
    shop.assert_unharmed()
    outcome(AREA, "slow headers, a byte at a time, on 200 connections", "each is closed after 10 s; others are served")


def test_slow_bodies_are_given_up(shop: Attacked, outcome: Outcome) -> None:
    heads = [
        b"content-type: application/json\r\ncontent-length: 999\r\n\r\n",
        b"content-type: multipart/form-data; boundary=x\r\ncontent-length: 999\r\n\r\n",
        b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    ]
    with ExitStack() as stack:
        slow = []
        for number in range(100):
            slow.append(stack.enter_context(connect(shop.address)))
            slow[-1].sendall(b"POST /search HTTP/1.1\r\nhost: localhost\r\n" + heads[number % len(heads)])
        for _ in range(3):
            shop.assert_unharmed()
            time.sleep(0.2)
        assert {read_all(connection).split()[1] for connection in slow} == {b"408"}
    shop.assert_unharmed()
    outcome(
        AREA, "slow bodies, with a length and in chunks, on 100 connections", "refused (408) at the timeout of a body"
    )


IDS = {
    "slashes and dots": (
        "a/b/c",
        "../../etc/passwd",
        "..",
        ".",
        "a/../b",
        "/",
        "//",
        "a//b",
        "%2e%2e",
        "similar",
        "\\",
    ),
    "NUL and control characters": ("%00", "\x00", "a\x00b", "\x1b[31mred", "a\nb", "a\n", "\n", "a\r\nb", "\x7f", "\t"),
    "bidirectional and invisible characters": ("\u202egnp.exe", "\u2066red\u2069", "\ufeff", "\u200bred", "\uffff"),
    "characters of URLs, templates and queries": (" ", "a?b#c;d&e=f", "{{7*7}}", "${x}", "' or 1=1 --", "\"'><script>"),
    "1,024 characters": ("a" * 1_024, "é" * 512),
}


@pytest.mark.parametrize("kind", IDS)
def test_a_product_of_any_id_is_stored_found_and_removed_as_itself(shop: Attacked, outcome: Outcome, kind: str) -> None:
    image = base64.b64encode(draw_png("yellow")).decode()
    body = json.dumps({"images": [{"image": image}], "metadata": {"title": "x"}}).encode()
    for product_id in IDS[kind]:
        path = f"/products/{quote(product_id, safe='')}"

        def request(method: str, path: str, content: bytes = b"") -> tuple[int, bytes]:
            head = f"{method} {path} HTTP/1.1\r\n{HEAD}content-type: application/json\r\n"
            status, response = send_raw(
                shop.address, f"{head}content-length: {len(content)}\r\n\r\n".encode() + content
            )
            return status, response.split(b"\r\n\r\n", 1)[1]

        assert request("PUT", path, body)[0] == 200, product_id
        status, found = request("GET", path)
        assert (status, json.loads(found)["product_id"]) == (200, product_id)
        assert request("GET", f"{path}/similar")[0] == 200
        hits = shop.http.post("/search", json={"image": image}).json()["hits"]
        assert hits[0]["product_id"] == product_id
        stored = [file for file in shop.service.settings.uploads.rglob("*") if file.is_file()]
        assert len(stored) == 1, "one file, inside the folder of uploads"
        assert stored[0].resolve().is_relative_to(shop.service.settings.uploads.resolve())
        assert request("DELETE", path)[0] == 204
        assert request("GET", path)[0] == 404
        shop.assert_unharmed()
    outcome(AREA, f"product ids with {kind}", "stored, found and removed as they are; no file outside the uploads")


PATHS = (
    "/products/%ff",
    "/products/%ed%a0%80",
    "/images/..%2f..%2fetc%2fpasswd",
    "/images/../../etc/passwd",
    "/images/%00",
    "/static/../../etc/passwd",
    "/static/..%2f..%2f/page.css",
    "/uploaded/..%2f..%2fx",
    "//etc/passwd",
    "http://evil.example/products/red",
    "*",
)


def test_paths_lead_to_no_file(shop: Attacked, outcome: Outcome) -> None:
    for path in PATHS:
        status, response = send_raw(shop.address, f"GET {path} HTTP/1.1\r\n{HEAD}\r\n".encode())
        assert status == 404, response
        assert b"root:" not in response
    outcome(AREA, "traversal in the path of an image, an upload or a static file; bytes that are not UTF-8", "404")


def test_folder_holds_nothing_else(shop: Attacked, tmp_path: Path) -> None:
    """After all of the above, the shop has its own three products only."""
    shop.assert_unharmed()
    assert shop.store.count() == 3
