"""Who asks: other hosts and sites, spoofed headers, stolen and guessed keys, and where a key may be seen."""

import hmac
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from command import lookalike
from hostile.attacked import (
    JSON,
    READER,
    WRITER,
    Attacked,
    attacked_shop,
    child_service,
    draw_png,
    draw_products,
    send_raw,
)
from hostile.conftest import Outcome
from serving import client

from lookalike.serve.middleware import KEY_COOKIE
from lookalike.serve.settings import Keys

AREA = "Service: access"
EVIL = "shop.example"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A service without keys."""
    with attacked_shop(tmp_path_factory.mktemp("local")) as shop:
        yield shop


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A service with keys."""
    with attacked_shop(tmp_path_factory.mktemp("guarded"), keys=f"{READER}, {WRITER}:write") as shop:
        yield shop


HOSTS = (
    EVIL,
    f"localhost.{EVIL}",
    f"{EVIL}:80",
    f"localhost@{EVIL}",
    f"127.0.0.1.{EVIL}",
    "",
    "[",
    "0x7f.1",
    "169.254.169.254",
    "[::ffff:10.0.0.1]",
)
SPOOFED = {
    "x-forwarded-host": "localhost",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-proto": "http",
    "x-real-ip": "127.0.0.1",
    "x-original-url": "/health",
    "x-rewrite-url": "/health",
    "forwarded": "for=127.0.0.1;host=localhost",
}


def test_a_foreign_host_is_refused_without_keys(local: Attacked, outcome: Outcome) -> None:
    """DNS rebinding: the page of a foreign site, whose name now leads here, may read nothing."""
    for host in HOSTS:
        for headers in ({}, SPOOFED):
            lines = [f"host: {host}", "connection: close", *(f"{name}: {value}" for name, value in headers.items())]
            request = "GET /products/red HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n"
            status, response = send_raw(local.address, request.encode())
            assert status in (400, 403), (host, response)
            assert b"red" not in response.split(b"\r\n\r\n", 1)[1]
    assert send_raw(local.address, b"GET /products/red HTTP/1.0\r\n\r\n")[0] == 403
    assert send_raw(
        local.address, f"GET http://localhost/ HTTP/1.1\r\nhost: {EVIL}\r\nconnection: close\r\n\r\n".encode()
    )[0] in (403, 404)
    local.assert_unharmed()
    outcome(AREA, "a foreign or spoofed Host, with X-Forwarded-* that say otherwise, without keys", "refused (403)")


def test_forwarded_headers_give_no_access_and_move_no_redirect(guarded: Attacked, outcome: Outcome) -> None:
    for headers in (SPOOFED, {**SPOOFED, "host": "localhost"}):
        assert guarded.http.get("/products/red", headers=headers).status_code == 401
        assert guarded.http.put("/products/red", headers={**headers, **JSON}, content=b"{}").status_code == 401
    page = guarded.http.get("/?product=red", headers={**SPOOFED, "host": EVIL, "accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login?then=%2F%3Fproduct%3Dred")
    signed_in = guarded.http.post("/login", data={"key": READER, "then": "/"}, headers={"x-forwarded-host": EVIL})
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/")
    outcome(AREA, "X-Forwarded-*, Forwarded and X-Original-URL with keys", "401; redirects stay on this host")


THEN = (
    "//evil.example",
    "https://evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/%2f/evil.example",
    "javascript:alert(1)",
    "/?x\r\nset-cookie: a=b",
    " //evil.example",
    "/.//evil.example",
)


def test_signing_in_leads_to_this_host_only(guarded: Attacked, outcome: Outcome) -> None:
    for then in THEN:
        response = guarded.http.post("/login", data={"key": READER, "then": then})
        assert response.status_code == 303
        assert response.headers["location"].startswith("/?" if then.startswith("/?") else "/")
        assert response.headers["location"][1:2] in ("", "?")
        assert response.headers.get_list("set-cookie")[0].startswith(KEY_COOKIE)
        assert len(response.headers.get_list("set-cookie")) == 1
    outcome(AREA, "a login that leads to another site, or splits the response", "leads to the page")


def test_a_form_of_another_site_is_refused(guarded: Attacked, local: Attacked, outcome: Outcome) -> None:
    """Signing a visitor in or out, or making a browser search, from a page of another site."""
    foreign = {"sec-fetch-site": "cross-site", "origin": f"https://{EVIL}"}
    for shop in (guarded, local):
        for path in ("/login", "/logout", "/"):
            response = shop.http.post(path, data={"key": READER}, headers=foreign)
            assert response.status_code == 403, path
            assert "set-cookie" not in response.headers
            assert "access-control-allow-origin" not in response.headers
        files: Any = {"image": draw_png("red")}
        assert shop.http.post("/search", files=files, headers=foreign).status_code in (401, 403)
        assert shop.http.put("/products/red", files=files, headers=foreign).status_code in (401, 403)
        assert shop.http.delete("/products/red", headers=foreign).status_code in (401, 403)
        preflight = shop.http.request(
            "OPTIONS", "/products/red", headers={**foreign, "access-control-request-method": "DELETE"}
        )
        assert not [name for name in preflight.headers if name.startswith("access-control")]
    cookie = {**foreign, "cookie": f"{KEY_COOKIE}={WRITER}"}
    assert guarded.http.delete("/products/red", headers=cookie).status_code == 403, "the cookie is not enough"
    key = {**foreign, "authorization": f"Bearer {READER}"}
    assert guarded.http.post("/search", json={"product_id": "red"}, headers=key).status_code == 200
    # A visitor who follows a link from elsewhere is welcome.
    assert local.http.get("/?product=red", headers=foreign).status_code == 200
    local.assert_unharmed()
    outcome(AREA, "a form or a script of another site: login, logout, search, write", "refused (403); no CORS headers")


def test_a_login_without_its_origin_sets_a_cookie_of_this_site_only(guarded: Attacked, outcome: Outcome) -> None:
    response = guarded.http.post("/login", data={"key": READER})
    cookie = response.headers["set-cookie"].lower()
    assert response.status_code == 303
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "domain=" not in cookie
    assert guarded.http.post("/login", data={"key": "wrong-0123456789"}).status_code == 403
    secure = guarded.http.post("/login", data={"key": READER}, headers={"x-forwarded-proto": "https"})
    assert "secure" in secure.headers["set-cookie"].lower(), "behind a proxy with TLS on this machine"
    outcome(AREA, "a login without its origin, as old browsers send it", "a cookie that no other site can use or read")


KEYS = (
    "",
    " ",
    READER[:-1],
    f"{READER}x",
    READER.upper(),
    READER.replace("r", "\u0433"),
    f"{READER},{WRITER}",
    f"{WRITER}:write",
    ":write",
    "\ufeff" + READER,
    "*",
    "%",
    "null",
    "a" * 10_000,
)


def test_no_other_key_is_a_key(guarded: Attacked, outcome: Outcome) -> None:
    for key in KEYS:
        value = key.encode()
        for header in (b"authorization: Bearer " + value, b"x-api-key: " + value):
            request = b"GET /products/red HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n" + header + b"\r\n\r\n"
            assert send_raw(guarded.address, request)[0] == 401, key
    for path in (
        f"/products/red?key={READER}",
        f"/products/red?api_key={WRITER}",
        f"/products/red?access_token={READER}",
    ):
        assert guarded.http.get(path).status_code == 401
    basic = guarded.http.get("/products/red", auth=("key", READER))
    assert basic.status_code == 401
    for path in (
        "/login/../products/red",
        "/static/../products/red",
        "/static/%2e%2e/products/red",
        "/login%2f..%2fmetrics",
    ):
        head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        assert send_raw(guarded.address, head.encode())[0] in (401, 404), path
    outcome(AREA, "parts of a key, two keys, look-alike letters, keys in the URL, paths around the check", "401")


def test_a_key_is_compared_in_constant_time(outcome: Outcome) -> None:
    """With every known key, by digests of one length: the calls are the same for right, near and wrong keys."""
    keys = Keys.parse(f"{READER}, {WRITER}:write, another-0123456789")

    def count_calls(key: str) -> list[str]:
        calls: list[str] = []

        def watch(_frame: Any, event: str, argument: Any) -> None:
            if event == "c_call":
                calls.append(argument.__name__)

        sys.setprofile(watch)
        try:
            keys.may_write(key)
        finally:
            sys.setprofile(None)
        return [name for name in calls if name != "setprofile"]

    expected = count_calls(READER)
    assert expected.count(hmac.compare_digest.__name__) == 3
    for key in (WRITER, "", READER[:-1], READER[:1] + "x" * 16, "x" * 1_000):
        assert count_calls(key) == expected
    outcome(
        AREA,
        "guessing a key by the time of its comparison",
        "every key is compared with all, by digests, in constant time",
    )


def test_keys_are_in_no_log_response_or_metric(tmp_path: Path, outcome: Outcome) -> None:
    draw_products(tmp_path / "photos")
    layout = ("--layout", "{product_id}/{image}")
    assert lookalike("ingest", "photos", *layout, "--encoder", "pixels", cwd=tmp_path).returncode == 0
    with (
        child_service(tmp_path, LOOKALIKE_API_KEYS=f"{READER}, {WRITER}:write") as child,
        client(child.address) as http,
    ):
        responses: list[httpx2.Response] = []
        for key in (READER, WRITER, "wrong-key-0123456789"):
            for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}, {"cookie": f"{KEY_COOKIE}={key}"}):
                paths = (
                    "/products/red",
                    "/?product=red",
                    f"/products/{key}",
                    f"/products/red?key={key}",
                    "/metrics",
                )
                responses.extend(http.get(path, headers=headers) for path in paths)
                responses.append(http.post("/search", content=b"{", headers={**headers, **JSON}))
                responses.append(http.post("/search", json={key: 1}, headers=headers))
                responses.append(http.put("/products/x", json={}, headers=headers))
            responses.append(http.post("/login", data={"key": key}))
            responses.append(http.post("/login", data={"key": key, key: key}))
            responses.append(http.get(f"/login?then={key}"))
            send_raw(child.address, f"GET /x HTTP/1.1\r\nauthorization: Bearer {key}\r\n\r\n".encode())
        metrics = http.get("/metrics", headers={"x-api-key": READER}).text
    log = child.log.read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert len([line for line in lines if line.get("event") == "request"]) >= len(responses)
    for key in (READER, WRITER, "wrong-key-0123456789"):
        assert key not in log
        assert key not in metrics
    outcome(
        AREA, "keys in headers, cookies, forms, paths and queries: are they logged?", "in no line of the log, no metric"
    )
