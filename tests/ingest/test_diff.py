"""Laws of the diff: it makes source and collection equal, only once, and in any order of the images."""

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from lookalike.ingest.pipeline.diff import Change, Diff, ExistingImage, FileStamp
from lookalike.schema.product import FileState, ProductImage, metadata_hash

SOURCE = "shop"


@dataclass(frozen=True)
class Photo:
    """An image of the source, its bytes as a number."""

    product_id: str
    name: str
    content: int
    mtime: int
    price: int

    @property
    def image(self) -> ProductImage:
        return ProductImage.named(SOURCE, self.product_id, self.name, f"/{self.name}", {"price": self.price})

    @property
    def file(self) -> FileState:
        return FileState.of(bytes(self.content + 1), self.mtime)


photos = st.lists(
    st.builds(
        Photo,
        product_id=st.sampled_from("ab"),
        name=st.sampled_from("xyz"),
        content=st.integers(0, 2),
        mtime=st.integers(1, 3),
        price=st.integers(0, 1),
    ),
    unique_by=lambda photo: (photo.product_id, photo.name),
    max_size=6,
)

Rows = dict[str, ExistingImage]


def as_existing(photo: Photo) -> ExistingImage:
    file, image = photo.file, photo.image
    stamp = FileStamp(file.size, file.mtime)
    return ExistingImage(file.hash, metadata_hash(image.metadata), stamp, image.image, image.product_id)


def apply(source: list[Photo], rows: Rows) -> tuple[Rows, list[Change]]:
    """Apply the diff to a dictionary in the place of a collection; return its rows and the changes."""
    diff, after, changes = Diff(rows), dict(rows), []
    for photo in source:
        assert diff.mark_seen(photo.image.image_id)
        change = diff.compare_stamp(photo.image, FileStamp(photo.file.size, photo.file.mtime))
        change = change or diff.compare_content(photo.image, photo.file)
        changes.append(change)
        if change is not Change.UNCHANGED:
            after[photo.image.image_id] = as_existing(photo)
    for image_id in diff.removed():
        del after[image_id]
    return after, changes


def collection(source: list[Photo]) -> Rows:
    return {photo.image.image_id: as_existing(photo) for photo in source}


@given(before=photos, after=photos)
def test_applying_the_diff_makes_collection_and_source_equal(before: list[Photo], after: list[Photo]) -> None:
    rows, _ = apply(after, collection(before))
    assert rows == collection(after)


@given(before=photos, after=photos)
def test_applying_it_twice_changes_nothing(before: list[Photo], after: list[Photo]) -> None:
    once, _ = apply(after, collection(before))
    twice, changes = apply(after, once)
    assert twice == once
    assert set(changes) <= {Change.UNCHANGED}


@given(before=photos, after=photos, order=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(before: list[Photo], after: list[Photo], order: object) -> None:
    shuffled = list(after)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert apply(shuffled, collection(before))[0] == apply(after, collection(before))[0]


@given(before=photos, after=photos)
def test_only_new_bytes_are_encoded(before: list[Photo], after: list[Photo]) -> None:
    rows = collection(before)
    _, changes = apply(after, rows)
    for photo, change in zip(after, changes, strict=True):
        row = rows.get(photo.image.image_id)
        is_new = row is None or row.image_hash != photo.file.hash
        assert (change in (Change.NEW, Change.CONTENT)) == is_new


@given(before=photos, after=photos)
def test_rejected_images_keep_their_rows(before: list[Photo], after: list[Photo]) -> None:
    rows = collection(before)
    diff = Diff(rows)
    with_row = [p.image.image_id for p in after if diff.mark_rejected(p.image.image_id, unreadable=p.price == 0)]
    assert set(with_row) == set(rows) & {photo.image.image_id for photo in after}
    assert set(diff.unreadable()) == set(rows) & {p.image.image_id for p in after if p.price == 0}
    assert set(diff.removed()) == set(rows) - set(with_row)


def test_a_file_with_another_path_is_read_even_with_the_same_size_and_mtime() -> None:
    photo = Photo("a", "x", content=1, mtime=1, price=1)
    diff, moved = Diff(collection([photo])), replace(photo.image, image="/elsewhere/x")
    assert diff.compare_stamp(moved, FileStamp(photo.file.size, 1)) is None
    assert diff.compare_content(moved, photo.file) is Change.METADATA
    assert diff.compare_content(moved, replace(photo.file, hash="other")) is Change.CONTENT


def test_a_file_with_an_unknown_mtime_is_read() -> None:
    photo = Photo("a", "x", content=1, mtime=0, price=1)
    diff = Diff(collection([photo]))
    assert diff.compare_stamp(photo.image, FileStamp(photo.file.size, 0)) is None
    assert diff.compare_content(photo.image, photo.file) is Change.TOUCHED
