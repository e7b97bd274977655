"""Fetching the URL of a request: an image from the public internet, or a clear refusal; never a private address."""

import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bad_server import IMAGE, Server, Site, serving
from loopback import loopback_only

from lookalike.encode.fetch.address import Address
from lookalike.encode.fetch.fetcher import Fetcher
from lookalike.encode.fetch.limits import Limits
from lookalike.encode.fetch.network import AddressPolicy
from lookalike.schema.errors import BadQuery
from lookalike.serve.runtime.deadline import Deadline, DeadlineExceeded, deadline_scope
from lookalike.serve.runtime.image_fetch import RequestFetcher, make_query_fetcher

LIMIT = len(IMAGE)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving() as port:
        yield port


@pytest.fixture(scope="module")
def site(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@contextmanager
def make_fetcher(seconds: float = 5, allowed: Callable[[Address], bool] = lambda a: a.is_loopback) -> Iterator[Fetcher]:
    """A fetcher as the service has, for other addresses."""
    fetcher = Fetcher(Limits(LIMIT, seconds, seconds, seconds, attempts=2, redirects=3), AddressPolicy(allowed))
    yield fetcher
    fetcher.close()


def fetch(fetcher: Fetcher, url: str) -> bytes:
    """Fetch as a request does."""
    return RequestFetcher(fetcher, max_images=1, max_bytes=LIMIT).fetch(url)


@pytest.fixture(autouse=True)
def refused_addresses() -> Iterator[list[str]]:
    """The addresses of other machines that a test has tried to reach; none is reached."""
    with loopback_only() as refused:
        yield refused


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    """A fetcher that may connect to this machine."""
    with make_fetcher() as fetcher:
        yield fetcher


@pytest.fixture
def public_fetcher() -> Iterator[Fetcher]:
    """A fetcher as the service has by default: public addresses only."""
    fetcher = make_query_fetcher(LIMIT)
    yield fetcher
    fetcher.close()


@pytest.mark.parametrize("path", ["image", "to//image", "to/..%2Fimage", "hops/3", "image/ä b%20c?d=é&e=%2F#f"])
def test_an_image_is_fetched(fetcher: Fetcher, site: str, path: str) -> None:
    assert fetch(fetcher, f" {site}/{path}\n") == IMAGE


def test_several_threads_fetch_at_once(fetcher: Fetcher, site: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(partial(fetch, fetcher), [f"{site}/image"] * 40)) == {IMAGE}


def test_the_host_header_names_the_host_and_not_its_address(fetcher: Fetcher, port: int) -> None:
    assert fetch(fetcher, f"http://LOCALHOST:{port}/host") == f"localhost:{port}".encode()


def test_the_host_header_has_brackets_around_an_ipv6_address(fetcher: Fetcher) -> None:
    class V6(Server):
        address_family = socket.AF_INET6

    try:
        server = V6(("::1", 0), Site)
    except OSError:
        pytest.skip("no IPv6 here")
    threading.Thread(target=server.handle_request, daemon=True).start()
    assert fetch(fetcher, f"http://[::1]:{server.server_port}/host") == f"[::1]:{server.server_port}".encode()
    server.server_close()


def test_proxies_of_the_environment_are_not_used(fetcher: Fetcher, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(fetcher, f"{site}/image") == IMAGE


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "①②⑦.0.0.1"]
)
def test_this_machine_is_refused(public_fetcher: Fetcher, port: int, host: str) -> None:
    with pytest.raises(BadQuery, match="does not lead to a public address; send the image itself instead"):
        fetch(public_fetcher, f"http://{host}:{port}/image")


@pytest.mark.parametrize("host", ["localhost", "no-such-host.invalid", "‥.example"])
def test_a_refusal_says_neither_where_a_name_leads_nor_whether_it_exists(public_fetcher: Fetcher, host: str) -> None:
    with pytest.raises(BadQuery, match="does not lead to a public address") as refused:
        fetch(public_fetcher, f"http://{host}/")
    assert "127.0.0.1" not in str(refused.value)


def test_the_connection_goes_to_the_address_that_was_checked(
    public_fetcher: Fetcher, refused_addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, getaddrinfo = iter(["93.184.215.14", "127.0.0.1"]), socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        return getaddrinfo(next(answers) if host == "shop.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(BadQuery, match=r"the connection failed|does not lead to a public address"):
        fetch(public_fetcher, "http://shop.example/image")
    assert refused_addresses == ["93.184.215.14"], "the name is not resolved again for the connection"


@pytest.mark.parametrize("private", ["10.0.0.1", "127.0.0.1", "169.254.169.254"])
def test_a_host_with_one_private_address_is_refused(
    public_fetcher: Fetcher, refused_addresses: list[str], monkeypatch: pytest.MonkeyPatch, private: str
) -> None:
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 80)) for a in ("93.184.215.14", private)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    with pytest.raises(BadQuery, match="does not lead to a public address"):
        fetch(public_fetcher, "http://shop.example/image")
    assert not refused_addresses


def test_a_redirect_to_a_refused_address_is_refused(site: str, port: int) -> None:
    only = ipaddress.ip_address("127.0.0.1")
    with (
        make_fetcher(allowed=lambda address: address == only) as fetcher,
        pytest.raises(BadQuery, match=r"the host '127\.0\.0\.2' does not lead to a public address"),
    ):
        fetch(fetcher, f"{site}/to/http://127.0.0.2:{port}/image")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("missing", "the server answered 404"),
        ("nowhere", "the server answered 302"),
        ("loop", "redirected more than 3 times"),
        ("hops/4", "redirected more than 3 times"),
        ("to/file:%2F%2F%2Fetc/passwd", "only http:// and https:// are fetched"),
        ("to/http:%2F%2F[", "redirected to what is not a URL"),
        ("to/http:%2F%2Fuser@127.0.0.1", "user or password"),
        ("long", f"more than {LIMIT} bytes, which is the limit"),
        ("endless", f"more than {LIMIT} bytes, which is the limit"),
        ("short", "incomplete: 1 of 1000 bytes arrived"),
        ("gibberish", "did not answer in HTTP"),
    ],
)
def test_a_bad_response_is_refused_with_the_reason(fetcher: Fetcher, site: str, path: str, why: str) -> None:
    with pytest.raises(BadQuery, match=f"/{path.split('/')[0]}.*could not be fetched: .*{why}") as refused:
        fetch(fetcher, f"{site}/{path}")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "only http:// and https://"),
        ("image.jpg", "only http:// and https://"),
        ("file:///etc/passwd", "only http:// and https://"),
        ("ftp://127.0.0.1/image", "only http:// and https://"),
        ("data:image/png;base64,AAAA", "only http:// and https://"),
        ("http:///image", "host is not a name or address"),
        ("http://a b/", "host is not a name or address"),
        ("http://a\0b/", "host is not a name or address"),
        ("http://[fe80::1%25lo]/", "host is not a name or address"),
        ("http://127.0.0.1:port/", "not a URL"),
        ("http://127.0.0.1:99999/", "not a URL"),
        ("http://[::1/", "not a URL"),
        (f"http://{'a' * 64}/", "not a URL"),
        ("http://a..b/", "not a URL"),
        ("http://127.0.0.1/\ud800", "not a URL"),
        ("http://127.0.0.1/" + "a" * 8000, "at most 8000 bytes"),
        ("http://127.0.0.1/" + "ä" * 2000, "at most 8000 bytes"),
        ("http://127.0.0.1:1/", "the connection failed"),
    ],
)
def test_a_bad_url_is_refused_with_the_reason(fetcher: Fetcher, url: str, why: str) -> None:
    with pytest.raises(BadQuery, match=why) as refused:
        fetch(fetcher, url)
    message = str(refused.value)
    assert message.endswith("send the image itself instead")
    assert len(message.encode()) < 400


@pytest.mark.parametrize("credentials", ["user:hidden", "hidden", "user:hidden\\", ":hidden"])
def test_credentials_are_refused_and_not_repeated(fetcher: Fetcher, port: int, credentials: str) -> None:
    with pytest.raises(BadQuery, match="a URL with a user or password is not fetched") as refused:
        fetch(fetcher, f"http://{credentials}@127.0.0.1:{port}/image")
    assert "hidden" not in str(refused.value)


def expect_timeout(url: str) -> None:
    started = time.monotonic()
    with (
        make_fetcher(seconds=0.4) as fetcher,
        pytest.raises(
            BadQuery,
            match=r"could not be fetched: timed out after 0\.4 s(: \d+ of 1000 bytes arrived)?; send the image itself",
        ),
    ):
        fetch(fetcher, url)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("path", ["drip", "drip-headers", "waits", "silence"])
def test_a_slow_server_is_given_up_at_the_deadline(site: str, path: str) -> None:
    expect_timeout(f"{site}/{path}")


def test_a_silent_handshake_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        expect_timeout(f"https://127.0.0.1:{silent.getsockname()[1]}/")


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, by its name only."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed, which makes the certificate")
    both = tmp_path_factory.mktemp("tls") / "both.pem"
    about = [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(both),
        "-out",
        str(both),
    ]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *about]
    subprocess.run(make, check=True, capture_output=True)
    return both


def test_a_certificate_for_another_name_is_refused(
    fetcher: Fetcher, certified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certified)
    monkeypatch.setenv("SSL_CERT_FILE", str(certified))
    with serving(tls) as port:
        assert fetch(fetcher, f"https://localhost:{port}/image") == IMAGE
        with pytest.raises(BadQuery, match=r"its certificate is not valid \(.*mismatch.*\); send"):
            fetch(fetcher, f"https://127.0.0.1:{port}/image")


def test_a_request_may_fetch_so_many_images_and_bytes(fetcher: Fetcher, site: str) -> None:
    image = fetch(fetcher, f"{site}/image")
    allowed = RequestFetcher(fetcher, max_images=3, max_bytes=len(image) + 1)
    assert allowed.fetch(f"{site}/image") == image
    with pytest.raises(BadQuery, match="more than 1 bytes"):
        allowed.fetch(f"{site}/image")
    deadline = Deadline(60)
    deadline.abandon()
    with deadline_scope(deadline), pytest.raises(DeadlineExceeded):
        allowed.fetch(f"{site}/image")
    with suppress(BadQuery):
        allowed.fetch(f"{site}/nothing")
    with pytest.raises(BadQuery, match="may name 3 images"):
        allowed.fetch(f"{site}/image")
