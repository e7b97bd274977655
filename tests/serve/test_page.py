"""The page in a real browser, against the real service; screenshots go to $LOOKALIKE_SCREENS where that is set."""

import base64
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import httpx2
import pytest
from conftest import bring
from make_tiny_clip import COLOURS, SHAPES, draw
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright
from serving import client, listening, service_for

from lookalike.encode.encoder import Encoder
from lookalike.encode.registry import load_encoder
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.errors import BadImage
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ProductImage
from lookalike.serve.middleware import KEY_COOKIE
from lookalike.serve.runtime.facet_cache import FacetCache
from lookalike.serve.web.upload_cache import UploadCache

CHROMIUM = shutil.which("chromium")
KEY = "reader-0123456789"
EVIL = "evil/\"><script>document.title='evil'</script> 'ü&%2f?"
TINY_CLIP = Path(__file__).parents[1] / "tiny_clip"

# Keep the browser itself off the network; all else is the default.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no browser here: install Chromium (apt-get install chromium)"
)


class Shop(NamedTuple):
    """The sample catalogue behind the page."""

    address: str
    http: httpx2.Client
    store: Store
    folder: Path


def add_metadata(image: ProductImage) -> ProductImage:
    """Add metadata such as a shop has to an image of the sample catalogue."""
    chance = Random(image.product_id)
    price, sale = chance.randrange(10, 180) / 2, chance.random() < 0.3
    more = {"title": image.product_id.replace("-", " ").capitalize(), "price": price, "on sale": sale}
    return replace(image, metadata={**image.metadata, **more})


def images(folder: Path) -> Iterator[ProductImage]:
    yield from map(add_metadata, FolderSource(folder / "photos", Layout("{category}/{product_id}/{image}")).images())  # type: ignore[arg-type]  # no image of it is rejected
    evil = {
        "category": "<b>evil</b>",
        "<img src=x onerror=alert(1)>": "\"'><script>document.title='evil'</script>",
        "list": ["<i>", 1, True],
        "object": {"</dl>": None},
        "long": "x" * 5_000,
    }
    [photo] = (folder / "queries").glob("*-shoe.jpg")
    yield ProductImage.named("test", EVIL, "1", str(photo), evil)


@pytest.fixture(scope="module")
def shop(encoder: Encoder, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("page")
    with Store.create(str(folder / "page.db"), encoder.fingerprint) as store:
        assert bring(images(catalogue), encoder, store, batch_size=32).rejected == 0
        service = service_for(store, encoder, folder / "uploads", lanes=2)
        with listening(service) as address, client(address) as http:
            yield Shop(address, http, store, catalogue)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield opened
        opened.close()


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, shop: Shop) -> Iterator[Visit]:
    """Open pages in new browser contexts. In the end, no page had an error or sent a request to another host."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def open_page(path: str = "/", *, at: str = "", also: str = "", expected: str = "^$", **options: Any) -> Page:
        origin = at or shop.address
        known = tuple(filter(None, (origin, also)))
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: errors.append(str(error)))

        def check(request: Request) -> None:
            if not request.url.startswith(known):
                errors.append(request.url)

        def read(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and not re.search(expected, message.text):
                errors.append(message.text)

        page.on("request", check)
        page.on("console", read)
        page.goto(origin + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def screen(tmp_path: Path) -> Callable[[Page, str], None]:
    """Take screenshots."""
    folder = Path(os.environ.get("LOOKALIKE_SCREENS", tmp_path / "screens"))
    folder.mkdir(parents=True, exist_ok=True)

    def take(page: Page, name: str) -> None:
        page.wait_for_load_state("networkidle")
        # Playwright would hide the caret by an inline style, which the page's CSP forbids.
        page.screenshot(path=folder / f"{name}.png", caret="initial")

    return take


def products(page: Page) -> list[str]:
    return page.locator("#grid .id").all_inner_texts()


@contextmanager
def new_results(page: Page) -> Iterator[None]:
    """Wait until the results of what the block does are shown."""
    page.evaluate("document.getElementById('results').dataset.old = 'true'")
    yield
    page.wait_for_selector("#results:not([data-old])")


def choose(page: Page, image: Path) -> None:
    with new_results(page):
        page.set_input_files("#upload", image)


def query(shop: Shop, name: str = "red-plain-mug") -> Path:
    return shop.folder / "queries" / f"{name}.jpg"


def inline(html: str) -> list[str]:
    """List the inline scripts and styles of a page."""
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            names = [name for name, _ in attrs]
            found.extend(name for name in names if name == "style" or re.match("on|hx-on|hx-vals", name))
            if tag == "style" or (tag == "script" and "src" not in names):
                found.append(tag)

    Reader().feed(html)
    return found


# Without a browser.


def test_the_csp_allows_only_the_page_itself(shop: Shop) -> None:
    response = shop.http.get("/?product=red-plain-mug&f.category=mug")
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';")
    assert "unsafe" not in policy
    assert response.headers["x-frame-options"] == "DENY"
    assert inline(response.text) == []
    assert "://" not in response.text


def test_static_files_are_immutable_and_named_by_content(shop: Shop) -> None:
    addresses = re.findall(r'(?:src|href)="(/static/[^"]+)"', shop.http.get("/").text)
    assert len(set(addresses)) == 4
    for address in addresses:
        response = shop.http.get(address)
        assert "immutable" in response.headers["cache-control"]
        assert response.headers["content-type"].startswith(("text/", "image/svg"))
    assert shop.http.get("/static/0/page.css").status_code == 404
    assert shop.http.get("/static/0/..%2fpage.py").status_code == 404


def test_product_data_is_escaped(shop: Shop) -> None:
    for params in ({"product": EVIL}, {"f.category": "<b>evil</b>"}, {"product": "red-plain-mug", "min.<u>": "1"}):
        text = shop.http.get("/", params=params).text
        for tag in ("<script>", "<b>evil", "<i>", "<img src=x", "<u>", "</dl>&", "onerror=alert(1)>"):
            assert tag not in text
    card = shop.http.get("/", params={"f.category": "<b>evil</b>"}).text
    assert "&lt;script&gt;document.title=" in card
    assert "x" * 301 not in card


def test_a_form_without_javascript_redirects_to_a_url_without_empty_fields(shop: Shop) -> None:
    form = {
        "product": " red-plain-mug ",
        "image": "",
        "f.category": ["mug", "hat"],
        "min.price": "",
        "max.price": "50",
    }
    response = shop.http.post("/", data=form, files={"upload": ("", b"")})
    assert response.status_code == 303
    assert response.headers["location"] == "/?product=red-plain-mug&f.category=mug&f.category=hat&max.price=50"


def test_the_same_image_has_the_same_unguessable_url(shop: Shop) -> None:
    content = query(shop).read_bytes()
    first, second = (shop.http.post("/", files={"upload": ("a.jpg", content)}).headers["location"] for _ in range(2))
    assert first == second
    assert re.fullmatch(r"/\?image=[0-9a-f]{32}", first)
    small = shop.http.get("/uploaded/" + first.partition("=")[2])
    assert small.headers["content-type"] == "image/jpeg"
    assert "sandbox" in small.headers["content-security-policy"]


def test_an_expired_upload_is_explained(shop: Shop) -> None:
    response = shop.http.get("/?image=0123&text=")
    assert response.status_code == 410
    assert "This photo has expired" in response.text
    assert "Choose it again" in response.text
    assert shop.http.get("/uploaded/0123").status_code == 404


def test_the_upload_cache_stays_within_its_bytes(shop: Shop) -> None:
    uploads = UploadCache(10**6, max_bytes=40_000)
    names = [uploads.add(photo.read_bytes()) for photo in sorted((shop.folder / "queries").iterdir())]
    cached = [copy for copy in map(uploads.get, names) if copy is not None]
    assert uploads.get(names[0]) is None
    assert uploads.get(names[-1]) is not None
    assert 1 < len(cached) < len(names)
    assert sum(map(len, cached)) <= 40_000
    with pytest.raises(BadImage, match="more than 100 pixels"):
        UploadCache(100).add(query(shop).read_bytes())


def test_the_upload_cache_drops_the_copy_that_was_not_used_for_longest(shop: Shop) -> None:
    uploads = UploadCache(10**6, max_bytes=40_000)
    photos = [photo.read_bytes() for photo in sorted((shop.folder / "queries").iterdir())]
    first, second = uploads.add(photos[0]), uploads.add(photos[1])
    for photo in photos[2:]:
        uploads.add(photo)
        assert uploads.get(first) is not None
    assert uploads.get(second) is None


def test_facets_are_computed_once_per_version(shop: Shop) -> None:
    cache = FacetCache()
    assert list(cache.get_cached(shop.store)) == []
    facets = cache.get_facets(shop.store)
    assert {facet.column for facet in facets} >= {"category", "price", "on sale"}
    assert cache.get_facets(shop.store) is facets
    cache.close()
    assert cache.get_facets(shop.store) is facets


@pytest.mark.parametrize(
    ("address", "status", "detail"),
    [
        ("/?product=nothing", 404, "no product &#39;nothing&#39;"),
        ("/?text=a+mug", 422, "encodes images but no text"),
        ("/?min.price=cheap", 422, "min.price: &#39;cheap&#39; is not a number"),
        ("/?max.price=nan", 422, "Milvus cannot store such a value"),
        ("/?product=red-plain-mug&offset=9999", 422, "offset 9999"),
        ("/?min.image=5", 422, "a service compares image as a whole"),
        ("/?" + "&".join(f"f.brand={n}" for n in range(300)), 422, "more than 200 choices"),
        ("/?product=red-plain-mug&offset=99999999999", 200, "most similar products"),
    ],
)
def test_invalid_queries_are_explained(shop: Shop, address: str, status: int, detail: str) -> None:
    response = shop.http.get(address)
    assert response.status_code == status
    assert detail in response.text


def test_ranges_and_choices_filter(shop: Shop) -> None:
    def found(**params: Any) -> set[str]:
        text = shop.http.get("/", params={"product": "red-plain-mug", **params}).text
        return set(re.findall(r'<p class="id">([^<]+)</p>', text))

    assert found(**{"f.category": "hat"}) == found(**{"f.category": ["hat", "cap"]})
    assert len(found(**{"f.category": "hat"})) == 8
    cheap, dear = (
        found(**{"f.category": "hat", "max.price": "40"}),
        found(**{"f.category": "hat", "min.price": "40.01"}),
    )
    assert cheap | dear == found(**{"f.category": "hat"})
    assert cheap
    assert dear
    assert not cheap & dear
    sale, full = (
        found(**{"f.category": "hat", "f.on sale": "true"}),
        found(**{"f.category": "hat", "f.on sale": "false"}),
    )
    assert len(sale | full) == 8
    assert not sale & full


# In a browser.


@needs_browser
def test_the_start_page(shop: Shop, visit: Visit, screen: Callable[[Page, str], None]) -> None:
    page = visit()
    assert len(products(page)) == 24
    expect(page.get_by_role("checkbox", name="mug 8 products")).to_be_visible()
    expect(page.get_by_label("price from")).to_have_attribute("placeholder", re.compile(r"\d"))
    expect(page.get_by_label("Describe it")).to_have_count(0)
    screen(page, "first")


@needs_browser
def test_an_image_is_chosen_and_its_url_shared(shop: Shop, visit: Visit, screen: Callable[[Page, str], None]) -> None:
    page = visit()
    choose(page, query(shop))
    assert products(page)[0] == "red-plain-mug"
    expect(page.get_by_role("status")).to_have_text(re.compile(r"^The 24 most similar products in [\d.]+ ms$"))
    screen(page, "image")
    other = visit(page.url.removeprefix(shop.address))
    assert products(other) == products(page)
    assert other.locator("#query .parts img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


@needs_browser
def test_an_image_is_dropped(shop: Shop, visit: Visit) -> None:
    page = visit("/?product=blue-plain-bag")
    with new_results(page):
        data = _data_transfer(page, query(shop))
        page.dispatch_event("body", "dragenter", {"dataTransfer": data})
        expect(page.locator("html")).to_have_class("dropping")
        page.dispatch_event("#grid", "drop", {"dataTransfer": data})
    assert products(page)[0] == "red-plain-mug"
    expect(page.locator("html")).not_to_have_class("dropping")
    assert "product" not in page.url  # a new image starts a new search


@needs_browser
def test_an_image_and_an_id_are_pasted(shop: Shop, visit: Visit) -> None:
    page = visit()
    with new_results(page):
        page.evaluate(
            "data => document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}))",
            _data_transfer(page, query(shop)),
        )
    assert products(page)[0] == "red-plain-mug"
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText(' green-dotted-hat\\n')")
    with new_results(page):
        page.locator("#title").focus()
        page.keyboard.press("Control+V")
    expect(page.get_by_role("heading", level=1)).to_have_text("Similar to green-dotted-hat")
    assert page.url.endswith("/?product=green-dotted-hat")


@needs_browser
def test_filters_stay_while_the_query_changes(shop: Shop, visit: Visit, screen: Callable[[Page, str], None]) -> None:
    page = visit("/?product=red-plain-mug")
    with new_results(page):
        page.get_by_role("checkbox", name="hat").check()
    assert len(products(page)) == 8
    with new_results(page):
        page.get_by_label("price to").fill("40")
        page.keyboard.press("Enter")
    cheap = products(page)
    assert 0 < len(cheap) < 8
    screen(page, "filtered")
    with new_results(page):
        page.locator(".similar").first.click()
    assert page.url.endswith("f.category=hat&max.price=40")
    assert {*products(page), cheap[0]} == set(cheap)
    with new_results(page):
        page.get_by_label("price to").fill("0.5")
        page.get_by_label("price to").blur()
    expect(page.get_by_text("No products match these filters.")).to_be_visible()
    screen(page, "empty")
    page.get_by_role("link", name="Clear filters").click()
    page.wait_for_url("**/?product=" + cheap[0])
    assert len(products(page)) == 24


@needs_browser
def test_the_page_works_with_the_keyboard_alone(shop: Shop, visit: Visit) -> None:
    page = visit()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the products")).to_be_focused()
    page.get_by_label("Product ID").focus()
    page.keyboard.type("red-plain-mug")
    with new_results(page):
        page.keyboard.press("Enter")
    expect(page.get_by_label("Product ID")).to_be_focused()
    first = products(page)[0]
    page.get_by_role("link", name=f"More like {first}").focus()
    assert page.locator(".card").first.evaluate("card => getComputedStyle(card).outlineStyle") == "solid"
    with new_results(page):
        page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Similar to {first}")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(".similar").first).to_be_focused()


@needs_browser
def test_show_more_until_the_last_product(shop: Shop, visit: Visit) -> None:
    page = visit("/?product=red-plain-mug")
    first = products(page)
    address = page.url
    page.get_by_role("link", name="Show more").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(48)
    expect(page.locator(".similar").nth(24)).to_be_focused()
    expect(page.get_by_role("status")).to_have_text(re.compile("Products 25 to 48"))
    page.get_by_role("link", name="Show more").click()
    expect(page.locator(".card")).to_have_count(64)
    expect(page.get_by_role("link", name="Show more")).to_have_count(0)
    found = products(page)
    assert found[:24] == first
    assert len(set(found)) == 64  # all 65 but the one in the query
    assert page.url == address


@needs_browser
def test_browser_back_and_forward(shop: Shop, visit: Visit) -> None:
    page = visit("/?product=red-plain-mug")
    before = products(page)
    with new_results(page):
        page.get_by_role("checkbox", name="hat").check()
    page.go_back()
    expect(page.locator("#grid .id").nth(20)).to_have_text(before[20])
    expect(page.get_by_role("checkbox", name="hat")).not_to_be_checked()
    page.go_forward()
    expect(page.locator(".card")).to_have_count(8)
    expect(page.get_by_role("checkbox", name="hat")).to_be_checked()


@needs_browser
def test_an_id_is_copied(shop: Shop, visit: Visit) -> None:
    page = visit("/?product=red-plain-mug")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(".card").first.hover()
    page.get_by_role("button", name=f"Copy ID {products(page)[0]}").click()
    expect(page.get_by_role("status")).to_have_text(f"Copied {products(page)[0]}")
    assert page.evaluate("navigator.clipboard.readText()") == products(page)[0]


@needs_browser
def test_broken_images_and_other_files_are_refused(
    shop: Shop, visit: Visit, tmp_path: Path, screen: Callable[[Page, str], None]
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(query(shop).read_bytes()[:2_000])
    page = visit("/?product=red-plain-mug", expected="status of 422")
    choose(page, broken)
    expect(page.get_by_role("alert")).to_contain_text("the image is broken")
    assert page.url.endswith("/?product=red-plain-mug")
    screen(page, "error")
    choose(page, query(shop))
    assert products(page)[0] == "red-plain-mug"
    page.dispatch_event("body", "drop", {"dataTransfer": _data_transfer(page, query(shop), "text/plain")})
    expect(page.get_by_role("alert")).to_contain_text("Drop or paste a photo")


@needs_browser
def test_hostile_products_do_no_harm(shop: Shop, visit: Visit) -> None:
    page = visit("/?f.category=<b>evil</b>")
    assert products(page) == [EVIL]
    expect(page.locator(".card")).to_contain_text("<img src=x onerror=alert(1)>")
    with new_results(page):
        page.locator(".similar").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Similar to {EVIL}")
    assert page.title() == f"{EVIL} · lookalike"


@needs_browser
def test_a_phone_screen(shop: Shop, visit: Visit, screen: Callable[[Page, str], None]) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    for path in ("/?product=red-plain-mug&f.category=mug", "/?f.category=<b>evil</b>", "/?product=" + "n" * 200):
        page = visit(path, expected="status of 404", **phone)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
    page = visit("/?product=red-plain-mug", **phone)
    screen(page, "phone")
    expect(page.get_by_role("checkbox", name="hat")).to_be_hidden()
    page.locator("#filters summary").tap()
    with new_results(page):
        page.get_by_role("checkbox", name="hat").check()
    expect(page.get_by_role("checkbox", name="hat")).to_be_visible()
    choose(page, query(shop))
    assert page.locator("#title").evaluate("title => title.getBoundingClientRect().top") < 370


@needs_browser
def test_dark_mode_and_reduced_motion(shop: Shop, visit: Visit, screen: Callable[[Page, str], None]) -> None:
    def ground(page: Page) -> str:
        return str(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))

    dark = visit("/?product=red-plain-mug", color_scheme="dark", reduced_motion="reduce")
    assert ground(dark) != ground(visit())
    assert dark.locator(".card").first.evaluate("card => getComputedStyle(card).transitionProperty") == "none"
    screen(dark, "dark")


@needs_browser
def test_without_javascript(shop: Shop, visit: Visit) -> None:
    page = visit(java_script_enabled=False)
    page.get_by_label("Product ID").fill("red-plain-mug")
    page.get_by_role("checkbox", name="hat").check()
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**/?product=red-plain-mug&f.category=hat")
    assert len(products(page)) == 8
    page.get_by_label("Product ID").fill("")
    page.set_input_files("#upload", query(shop))
    page.get_by_role("button", name="Search").click()
    page.wait_for_url(re.compile(r"image=[0-9a-f]{32}&f\.category=hat"))
    page.get_by_role("link", name="Clear filters").click()
    page.get_by_role("link", name="Show more").click()
    page.wait_for_url("**offset=24")
    expect(page.get_by_role("status")).to_contain_text("Products 25 to 48")


@needs_browser
def test_search_by_text(browser: Browser, visit: Visit, tmp_path: Path) -> None:
    encoder = load_encoder(str(TINY_CLIP))
    chance = Random(3)
    for colour in COLOURS:
        for shape in SHAPES:
            (tmp_path / "p" / f"{colour}-{shape}").mkdir(parents=True)
            draw(colour, shape, chance).save(tmp_path / "p" / f"{colour}-{shape}" / "1.png")
    with Store.create(str(tmp_path / "words.db"), encoder.fingerprint) as store:
        bring(FolderSource(tmp_path / "p", Layout("{product_id}/{image}")).images(), encoder, store)
        with listening(service_for(store, encoder, tmp_path / "uploads")) as address:
            page = visit(at=address)
            page.get_by_label("Describe it").fill("a red circle")
            with new_results(page):
                page.get_by_role("button", name="Search").click()
            assert products(page)[0] == "red-circle"
            expect(page.get_by_role("heading", level=1)).to_have_text("Similar to “a red circle”")
            choose(page, tmp_path / "p" / "blue-square" / "1.png")
            assert "text=a+red+circle" in page.url
            assert "image=" in page.url
            page.close()


@needs_browser
def test_sign_in_and_out(
    shop: Shop, encoder: Encoder, visit: Visit, tmp_path: Path, screen: Callable[[Page, str], None]
) -> None:
    with listening(service_for(shop.store, encoder, tmp_path, keys=KEY)) as address:
        page = visit("/?product=red-plain-mug", at=address, expected="status of 40[13]")
        assert "/login?then=" in page.url
        page.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Unknown API key")
        screen(page, "login")
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(address + "/?product=red-plain-mug")
        assert len(products(page)) == 24
        [cookie] = page.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (KEY_COOKIE, True, "Strict")
        page.context.clear_cookies()
        page.locator(".similar").first.click()
        page.wait_for_url("**/login?then=*product*")
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/login")
        page.goto(address + "/")
        assert page.url.endswith("/login")
        page.close()


@needs_browser
def test_a_link_from_another_site_keeps_the_visitor_signed_in(
    shop: Shop, encoder: Encoder, visit: Visit, tmp_path: Path
) -> None:
    with listening(service_for(shop.store, encoder, tmp_path, keys=KEY)) as address:
        inside = address.replace("127.0.0.1", "localhost")
        page = visit(also=inside)
        page.context.add_cookies([{"name": KEY_COOKIE, "value": KEY, "url": inside, "sameSite": "Strict"}])
        page.evaluate("to => location.assign(to)", inside + "/?product=red-plain-mug")
        page.wait_for_url(inside + "/?product=red-plain-mug")
        assert len(products(page)) == 24
        page.close()


def test_login_redirects_to_this_host_only(shop: Shop, encoder: Encoder, tmp_path: Path) -> None:
    with listening(service_for(shop.store, encoder, tmp_path, keys=KEY)) as address, client(address) as http:
        for then in ("https://elsewhere.example", "//elsewhere.example", "/\\elsewhere.example", "/docs"):
            assert http.post("/login", data={"key": KEY, "then": then}).headers["location"] == "/"
        response = http.post("/login", data={"key": KEY, "then": "/?product=a"})
        assert response.headers["location"] == "/?product=a"
        assert "httponly" in response.headers["set-cookie"].lower()
        assert http.post("/login", data={"key": "nothing"}).status_code == 403
        assert client(address).get("/").status_code == 401  # a program gets JSON, no form
        assert client(address).get("/", headers={"Accept": "text/html"}).headers["location"] == "/login"


def _data_transfer(page: Page, file: Path, kind: str = "image/jpeg") -> Any:
    return page.evaluate_handle(
        """([content, kind]) => {
            const data = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
            data.items.add(new File([bytes], 'image', { type: kind }));
            return data;
        }""",
        [base64.b64encode(file.read_bytes()).decode(), kind],
    )
