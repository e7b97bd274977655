"""Scripts and markup in ids, titles, links and the URL of the page, in a real browser: none of them runs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from conftest import bring
from hostile.attacked import draw_png
from hostile.conftest import Outcome
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, Request, sync_playwright
from serving import client, listening, service_for

from lookalike.encode.models.pixels import PixelEncoder
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ProductImage

AREA = "The page"
CHROMIUM = shutil.which("chromium")
# Keep the browser itself off the network; all names but this machine's lead nowhere.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser here: install Chromium (apt-get install chromium)")

RUN = "window.evil=1;document.title='evil';alert(1)"
SCRIPTS = (
    f"<script>{RUN}</script>",
    f'"><script>{RUN}</script>',
    f'\'><img src=x onerror="{RUN}">',
    f'<svg onload="{RUN}">',
    f"</title></textarea></style></script><script>{RUN}</script>",
    f'<div hx-on:load="{RUN}" hx-get="/metrics" hx-trigger="load">x</div>',
    f'" onfocus="{RUN}" autofocus x="',
    f"javascript:{RUN}//",
    f"data:text/html,<script>{RUN}</script>",
    f"{{{{ self.__init__ }}}}${{{RUN}}}<%= {RUN} %>",
    "<base href='https://evil.example/'><meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<form action='https://evil.example/'><button>Search</button></form><iframe src='https://evil.example/'></iframe>",
    "\u202e<\u2028script>\u2066evil\u2069\x00\x1b[2J",
)


class Shop(NamedTuple):
    """A collection whose every text is a script, behind the page."""

    address: str
    store: Store


def list_images(photo: Path) -> Iterator[ProductImage]:
    for number, script in enumerate(SCRIPTS):
        metadata = {
            "title": script,
            "url": script,
            "link": f"javascript:{RUN}",
            "category": script,
            script.replace("\x00", ""): "a column",
            "list": [script, script],
            "object": {script: script},
        }
        yield ProductImage.named("test", f"{number}/{script}", "1", str(photo), metadata)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder, encoder = tmp_path_factory.mktemp("scripts"), PixelEncoder()
    photo = folder / '"><img src=x onerror=alert(1)>.png'.replace("/", "")
    photo.write_bytes(draw_png("red"))
    with Store.create(str(folder / "scripts.db"), encoder.fingerprint) as store:
        assert bring(list_images(photo), encoder, store).rejected == 0
        with listening(service_for(store, encoder, folder / "uploads")) as address:
            yield Shop(address, store)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield opened
        opened.close()


class Visitor:
    """A browser window that notes every sign of a script that has run."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.signs: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(15_000)
        self._address = address
        self.page.on("dialog", self._note_dialog)
        self.page.on("request", self._note_request)
        context.on("page", lambda page: self.signs.append(f"a new window: {page.url}"))

    def open(self, path: str) -> Page:
        """Open a page of the shop and look at it."""
        self.page.goto(self._address + path)
        self.check()
        return self.page

    def check(self) -> None:
        """Nothing has run, and nothing on the page could be made to run by a click."""
        page = self.page
        assert page.url.startswith(self._address)
        assert page.evaluate("window.evil") is None
        assert page.title().endswith("lookalike")
        assert page.evaluate(_DANGERS) == []
        assert self.signs == []

    def _note_dialog(self, dialog: Dialog) -> None:
        self.signs.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith(self._address):
            self.signs.append(f"a request: {request.url}")


_DANGERS = """() => [...document.querySelectorAll("*")].flatMap((element) => [
  ...(["IFRAME", "OBJECT", "EMBED", "BASE"].includes(element.tagName) ? [element.tagName] : []),
  ...(element.tagName === "SCRIPT" && !element.src.startsWith(location.origin + "/static/") ? ["a script"] : []),
  ...(element.tagName === "META" && element.httpEquiv ? ["meta " + element.httpEquiv] : []),
  ...[...element.attributes].map((attribute) => attribute.name).filter((name) => /^(on|hx-on)/.test(name)),
  ...["href", "src", "action", "formAction"].filter((name) => typeof element[name] === "string" && element[name]
    && element.hasAttribute(name.toLowerCase()) && !element[name].startsWith(location.origin + "/")),
])"""
"""Lists what markup of the catalogue would add to the page: elements, handlers, and links that lead elsewhere."""


@pytest.fixture
def visitor(browser: Browser, shop: Shop) -> Iterator[Visitor]:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        yield Visitor(context, shop.address)


def test_scripts_of_the_catalogue_do_not_run(shop: Shop, visitor: Visitor, outcome: Outcome) -> None:
    page = visitor.open("/")
    assert page.locator(".card").count() == len(SCRIPTS)
    for number, script in enumerate(SCRIPTS):
        product_id = f"{number}/{script}"
        page = visitor.open(f"/?{urlencode({'product': product_id})}")
        assert page.locator(".card").count() == len(SCRIPTS) - 1
        visitor.open(f"/?{urlencode({'f.category': script})}")
    page = visitor.open("/")
    for number in range(3):
        page.locator(".card .similar").nth(number).click()
        page.wait_for_load_state("networkidle")
        visitor.check()
    page.locator("button[data-copy]").first.click()
    visitor.check()
    outcome(
        AREA,
        f"{len(SCRIPTS)} kinds of script and markup in ids, titles, links, columns and values of products (Chromium)",
        "shown as text; nothing runs, nothing is sent elsewhere",
    )


PARAMETERS = ("product", "f.category", "min.price", "offset", "image", "text", "<b>", "f.<script>", "then")


def test_scripts_of_a_link_do_not_run(visitor: Visitor, outcome: Outcome) -> None:
    for script in SCRIPTS:
        fields: list[dict[str, Any]] = [{name: script} for name in PARAMETERS]
        for query in (*fields[:5], {script: "1"}, {f"f.{script}": script}, {f"min.{script}": "1"}):
            visitor.open(f"/?{urlencode(query)}")
    outcome(AREA, "the same in each part of a link to the page", "shown as text, or refused; nothing runs")


def test_scripts_in_paths_and_uploads_do_not_run(
    shop: Shop, visitor: Visitor, outcome: Outcome, tmp_path: Path
) -> None:
    html = f"<!doctype html><script>{RUN}</script>".encode()
    upload = tmp_path / "photo<img src=x onerror=alert(1)>.html.png"
    upload.write_bytes(html)
    page = visitor.open("/")
    page.set_input_files("#upload", upload)
    page.get_by_role("alert").wait_for()
    visitor.check()
    page.set_input_files(
        "#upload", {"name": "x.svg", "mimeType": "image/svg+xml", "buffer": b"<svg onload='alert(1)'/>"}
    )
    page.wait_for_load_state("networkidle")
    visitor.check()
    # An image of the shop that is a page too, opened on its own.
    page.set_input_files("#upload", {"name": "p.png", "mimeType": "image/png", "buffer": draw_png("blue") + html})
    page.wait_for_url("**image=*")
    visitor.check()
    uploaded = page.locator(".parts img").first.get_attribute("src") or ""
    stored = page.locator(".card img").first.get_attribute("src") or ""
    for path in (
        uploaded,
        stored,
        "/products/<script>alert(1)</script>",
        "/<script>alert(1)</script>",
        "/metrics?<script>",
    ):
        page.goto(shop.address + path)
        assert page.evaluate("window.evil") is None
        assert visitor.signs == []
    with client(shop.address) as http:
        assert http.get(uploaded).headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert http.get("/<script>alert(1)</script>").headers["content-type"] == "application/problem+json"
    outcome(
        AREA, "HTML and SVG as a photo, and scripts in a path (in Chromium)", "refused, or shown as an image or as JSON"
    )


def test_the_page_is_framed_by_no_other_site(browser: Browser, shop: Shop, outcome: Outcome, tmp_path: Path) -> None:
    (tmp_path / "frame.html").write_text(f"<iframe src='{shop.address}/?product=x'></iframe>")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((tmp_path / "frame.html").as_uri())
        page.wait_for_load_state("networkidle")
        assert page.frames[1].locator("#search").count() == 0
    outcome(AREA, "the page in a frame of another site (clickjacking)", "the browser shows nothing in it")
