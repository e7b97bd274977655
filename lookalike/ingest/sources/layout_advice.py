"""Why a layout does not fit the paths of a folder, and one that does."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lookalike.ingest.sources.layout import Layout

_MAX_LISTED = 5
"""How many depths a message lists."""

_MIN_FIT = 0.5
"""Where fewer of the first images fit a layout, it is worth a warning."""


@dataclass(frozen=True, slots=True)
class LayoutFit:
    """How a layout fits some paths of a folder."""

    layout: str
    paths: Sequence[str]
    misfits: Sequence[str]
    """Those of the paths that the layout cannot read."""

    @property
    def is_poor(self) -> bool:
        """Whether so few paths fit that another layout was probably meant."""
        return len(self.misfits) > _MIN_FIT * len(self.paths)

    def describe(self) -> str:
        """Return how many images fit, why one does not, and a layout that fits most of them."""
        fitting = len(self.paths) - len(self.misfits)
        images = f"the first {len(self.paths)} images" if len(self.paths) > 1 else "the one image"
        return (
            f"the layout {self.layout} fits {fitting or 'none'} of {images}: "
            f"{self._explain()}.{self._list_depths()} {self._propose()}"
        )

    def _explain(self) -> str:
        """Return an example of a path that does not fit, and why."""
        depth, expected = _most_common_depth(self.misfits), _depth_of(self.layout)
        example = next(path for path in self.misfits if _depth_of(path) == depth)
        if depth == expected:
            return f"{example!a} has as many levels, but not the text between the fields"
        return f"{example!a} has {_levels(depth)}, the layout has {expected}"

    def _list_depths(self) -> str:
        """Return how many images have each depth, if they have several."""
        depths = Counter(map(_depth_of, self.paths)).most_common()
        if len(depths) == 1:
            return ""
        listed = ", ".join(f"{count} have {_levels(depth)}" for depth, count in depths[:_MAX_LISTED])
        return f" Of these images, {listed}{', …' if len(depths) > _MAX_LISTED else ''}."

    def _propose(self) -> str:
        template = propose_layout(self.paths)
        read = count_fitting(template, self.paths)
        product = "a folder" if _depth_of(template) > 1 else "an image"
        return f"--layout '{template}' reads {read} of them. Without --layout, {product} is a product"


def check_layout(layout: str, paths: Sequence[str]) -> LayoutFit:
    """Try a layout on the paths of some images, relative to their folder."""
    rule = Layout(layout)
    return LayoutFit(layout, paths, [path for path in paths if not rule.matches(path)])


def propose_layout(paths: Sequence[str]) -> str:
    """Return the template that reads the paths of the depth that is most common.

    The deepest level is the image, the one above it the product, the next one the category.
    """
    depth = _most_common_depth(paths)
    if depth > 1:
        return "/".join([*["{_}"] * (depth - 3), *["{category}", "{product_id}", "{image}"][-min(depth, 3) :]])
    suffixes = {PurePosixPath(path).suffix for path in paths if _depth_of(path) == 1}
    # Without its suffix, the name of an image is the product.
    return "{product_id}" + (suffixes.pop() if len(suffixes) == 1 else ".{_}")


def count_fitting(template: str, paths: Sequence[str]) -> int:
    """Return how many of the paths a template reads."""
    rule = Layout(template)
    return sum(map(rule.matches, paths))


def _most_common_depth(paths: Sequence[str]) -> int:
    return Counter(map(_depth_of, paths)).most_common(1)[0][0]


def _depth_of(path: str) -> int:
    return path.count("/") + 1


def _levels(count: int) -> str:
    return "1 level" if count == 1 else f"{count} levels"
