"""What the first look at a folder says: a layout that does not fit, files that are no images."""

import json
import re
from pathlib import Path

import pytest
from catalogue import draw
from command import fails, lookalike
from hypothesis import given
from hypothesis import strategies as st

import lookalike as api
from lookalike.encode.decode import decode
from lookalike.encode.image_limits import SUFFIXES
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import FolderRule, Layout
from lookalike.ingest.sources.layout_advice import propose_layout
from lookalike.ingest.sources.open import look_at_folder
from lookalike.schema.errors import BadImage, BadSource
from lookalike.schema.product import ProductImage

PIXELS = ("--encoder", "pixels")
LAYOUT = "{category}/{product_id}/{image}"


def draw_all(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        draw(folder / name, number)
    return folder


@pytest.mark.parametrize(
    ("names", "layout", "problem", "proposal"),
    [
        (["red/1.png", "blue/1.png"], LAYOUT, "'blue/1.png' has 2 levels, the layout has 3", "{product_id}/{image}"),
        (["a.png", "b.png"], LAYOUT, "'a.png' has 1 level, the layout has 3", "{product_id}.png"),
        (["a.png", "b.jpg"], LAYOUT, "'a.png' has 1 level, the layout has 3", "{product_id}.{_}"),
        (["mug/red/1.png"], "{product_id}/{image}", "'mug/red/1.png' has 3 levels, the layout has 2", LAYOUT),
        (
            ["shop/x/mug/red/1.png"],
            LAYOUT,
            "'shop/x/mug/red/1.png' has 5 levels, the layout has 3",
            "{_}/{_}/{category}/{product_id}/{image}",
        ),
        (
            ["red/1.png"],
            "{category}-{product_id}/{image}",
            "'red/1.png' has as many levels, but not the text between the fields",
            "{product_id}/{image}",
        ),
    ],
)
def test_a_layout_that_fits_nothing_says_why_and_proposes_one_that_works(
    names: list[str], layout: str, problem: str, proposal: str, tmp_path: Path
) -> None:
    draw_all(tmp_path / "photos", *names)
    message = fails(2, "ingest", "photos", "--layout", layout, *PIXELS, cwd=tmp_path)
    images = "the one image" if len(names) == 1 else "the first 2 images"
    assert f"the layout {layout} fits none of {images}: {problem}. " in message
    assert f"--layout '{proposal}' reads {len(names)} of them. Without --layout, " in message
    with (
        api.connect(tmp_path / "lookalike.db", encoder="pixels") as shop,
        pytest.raises(BadSource, match=re.escape(f"layout '{proposal}' reads {len(names)} of them. Without layout, ")),
    ):
        shop.ingest(tmp_path / "photos", layout=layout)
    assert not (tmp_path / "lookalike.db").exists()
    done = lookalike("ingest", "photos", "--layout", proposal, *PIXELS, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["stored"] == len(names)


def test_several_depths_are_counted(tmp_path: Path) -> None:
    draw_all(tmp_path / "p", "1.png", *(f"{n}/x.png" for n in range(3)), *(f"a/b/c/{n}.png" for n in range(5)))
    message = fails(2, "ingest", "p", "--layout", LAYOUT, *PIXELS, cwd=tmp_path)
    assert "'a/b/c/0.png' has 4 levels, the layout has 3. " in message
    assert "Of these images, 5 have 4 levels, 3 have 2 levels, 1 have 1 level. " in message
    assert "--layout '{_}/{category}/{product_id}/{image}' reads 5 of them" in message


def test_a_layout_that_fits_few_images_is_warned_about_at_the_start_and_in_the_summary(tmp_path: Path) -> None:
    draw_all(tmp_path / "p", "mug/red/1.png", *(f"b{n}/1.png" for n in range(3)))
    done = lookalike("ingest", "p", "--layout", LAYOUT, *PIXELS, cwd=tmp_path)
    warning = f"warning: the layout {LAYOUT} fits 1 of the first 4 images: 'b0/1.png' has 2 levels, the layout has 3. "
    assert done.stderr.decode().index(warning) < done.stderr.index(b"rejected")
    assert done.returncode == 0
    assert "--layout '{product_id}/{image}' reads 3 of them" in done.stderr.decode()
    dry = lookalike("ingest", "p", "--layout", LAYOUT, *PIXELS, "--dry-run", "--json", cwd=tmp_path)
    assert "fits 1 of the first 4 images" in json.loads(dry.stdout)["warnings"][-1]
    with api.connect(tmp_path / "lookalike.db", encoder="pixels") as shop:
        [text] = shop.ingest(tmp_path / "p", layout=LAYOUT).warnings
        assert "layout '{product_id}/{image}' reads 3 of them" in text
    draw_all(tmp_path / "p", "mug/blue/1.png", "mug/blue/2.png", "mug/blue/3.png")
    assert look_at_folder(FolderSource(tmp_path / "p", Layout(LAYOUT)), LAYOUT).warnings == ()


def test_a_layout_with_a_type_that_no_path_has_says_so(tmp_path: Path) -> None:
    draw_all(tmp_path / "p", "cheap/red/1.png")
    message = fails(2, "ingest", "p", "--layout", "{price:float}/{product_id}/{image}", *PIXELS, cwd=tmp_path)
    assert "price is 'cheap', not float" in message


LEVEL = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=5).filter(
    lambda text: text not in (".", "..")
)
IMAGE = st.builds(lambda stem, suffix: stem + suffix, LEVEL, st.sampled_from(sorted(SUFFIXES | {".JPG", ".Png"})))


@given(st.integers(0, 6).flatmap(lambda depth: st.lists(st.tuples(*[LEVEL] * depth, IMAGE), min_size=1, max_size=5)))
def test_the_proposed_layout_reads_every_path_of_one_depth(paths: list[tuple[str, ...]]) -> None:
    joined = ["/".join(path) for path in paths]
    rule = Layout(propose_layout(joined))
    for path in paths:
        fields = rule.read_path("/".join(path))
        assert fields.product_id
        if len(path) > 1:
            assert fields.product_id == path[-2]
        if len(path) > 2:
            # A column of blanks alone is none.
            assert fields.metadata == ({"category": path[-3]} if path[-3].strip() else {})


def test_a_folder_without_images_says_which_files_are_images_and_what_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "a").mkdir(parents=True)
    assert "holds no images and no other files; is it the right folder, and mounted?" in fails(
        2, "ingest", "photos", cwd=tmp_path
    )
    for number in range(12):
        (folder / "a" / f"{number}.HEIC").write_bytes(b"x")
    for name in ("1.svg", "2.svg", "3.svg", "notes.txt", "README", "products.csv", "Thumbs.db", ".hidden"):
        (folder / name).write_bytes(b"x")
    expected = (
        "holds no images that are read, but 12 .heic, 3 .svg, 1 without suffix, 1 .csv, 1 .txt; images end in .avif, "
        ".bmp, .gif, .jfif, .jpeg, .jpg, .png, .tif, .tiff, .webp. Save others as JPEG or PNG; "
        "to read a manifest, name it as SOURCE"
    )
    for layout in ((), ("--layout", LAYOUT)):
        assert expected in fails(2, "ingest", "photos", *layout, cwd=tmp_path)
    with api.connect(tmp_path / "shop.db") as shop, pytest.raises(BadSource, match=r"12 \.heic, 3 \.svg"):
        shop.ingest(folder)


def test_files_that_are_passed_over_are_counted(tmp_path: Path) -> None:
    folder = draw_all(tmp_path / "photos", "a/1.png", "a/2.png", "b/3.png")
    for name in ("a/guide.pdf", "b/guide.PDF", "b/prices.docx", "a/Thumbs.db", ".DS_Store"):
        (folder / name).write_bytes(b"x")
    (folder / "a" / "1.json").write_text('{"price": 9.5}')
    (folder / "a" / "2.json").write_text("{")
    (folder / "b" / "other.json").write_text("{}")
    line = b"passed over 4 files that are no images: 2 .pdf, 1 .docx, 1 .json"
    assert line in lookalike("ingest", "photos", "--dry-run", *PIXELS, cwd=tmp_path).stdout
    assert line in lookalike("ingest", "photos", *PIXELS, cwd=tmp_path).stdout
    done = lookalike("ingest", "photos", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["passed_over"] == {".pdf": 2, ".docx": 1, ".json": 1}
    with api.connect(tmp_path / "lookalike.db") as shop:
        assert shop.ingest(folder).passed_over == {".pdf": 2, ".docx": 1, ".json": 1}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "SVG"),
        (b"%PDF-1.7", "a PDF"),
        (b"8BPS\0\1", "a Photoshop file"),
    ],
)
def test_a_query_image_of_another_format_is_named(content: bytes, name: str, tmp_path: Path) -> None:
    draw_all(tmp_path / "photos", "a/1.png")
    assert lookalike("ingest", "photos", *PIXELS, cwd=tmp_path).returncode == 0
    (tmp_path / "query").write_bytes(content)
    expected = f"(JPEG, PNG, WEBP, GIF, TIFF, BMP, AVIF); it is {name}: save it as JPEG or PNG"
    assert expected in fails(2, "search", "query", cwd=tmp_path)
    with pytest.raises(BadImage, match=re.escape(expected)):
        decode(content)


def test_a_json_file_that_two_images_share_hides_no_other(tmp_path: Path) -> None:
    for name in ("1.png", "1.jpg"):
        draw(tmp_path / "photos" / "m" / name, 1)
    for name in ("1.json", "x.json"):
        (tmp_path / "photos" / "m" / name).write_text('{"price": 3}')
    source = FolderSource(tmp_path / "photos", FolderRule())
    assert [item.metadata for item in source.images() if isinstance(item, ProductImage)] == [{"price": 3}] * 2
    assert source.passed_over == {".json": 1}


def test_a_milvus_lite_store_in_the_source_is_none_of_its_files(tmp_path: Path) -> None:
    draw(tmp_path / "m" / "1.png", 1)
    for _ in range(2):
        done = lookalike("ingest", ".", "--encoder", "pixels", "--json", cwd=tmp_path)
        assert json.loads(done.stdout)["passed_over"] == {}


def test_an_empty_name_is_no_name_of_a_source(tmp_path: Path) -> None:
    draw(tmp_path / "m" / "1.png", 1)
    message = fails(2, "ingest", ".", "--encoder", "pixels", "--source-name", "", cwd=tmp_path)
    assert "--source-name is empty; leave it out" in message


def test_prune_unreadable_alone_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "m" / "1.png", 1)
    assert "add --prune, or leave it out" in fails(2, "ingest", ".", "--prune-unreadable", cwd=tmp_path)
