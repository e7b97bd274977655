"""The curve of recall over latency, as an image."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from lookalike.search.tuning.recall import Point

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 960, 600, 90, 70, 40, 70
_BACKGROUND, _BLACK, _GREY, _GRID, _BLUE = "#ffffff", "#1d1d1f", "#6e6e73", "#e3e3e6", "#2f6fed"
_TICKS = 5


@dataclass(frozen=True, slots=True)
class _Axes:
    """The ranges of the axes: 0 to `max_milliseconds` to the right, `min_recall` to 1 upwards."""

    max_milliseconds: float
    min_recall: float

    def position(self, milliseconds: float, recall: float) -> tuple[float, float]:
        """Return the pixel of a point: x, y."""
        x = _LEFT + milliseconds / self.max_milliseconds * (_WIDTH - _LEFT - _RIGHT)
        share = (recall - self.min_recall) / (1 - self.min_recall)
        return x, _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def draw_curve(points: Sequence[Point], target: float, title: str) -> Image.Image:
    """Draw the recall of a search over its milliseconds, each point with its `ef`; `target` is the recall to reach."""
    image = Image.new("RGB", (_WIDTH, _HEIGHT), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    axes = _Axes(
        max_milliseconds=1.1 * max(point.milliseconds for point in points),
        min_recall=min(0.95, *(point.recall for point in points)) - 0.01,
    )
    draw.text((_LEFT, 22), f"{title}: recall over latency", fill=_BLACK, font=_font(22))
    _draw_axes(draw, axes)
    _draw_target(draw, axes, target)
    positions = [axes.position(point.milliseconds, point.recall) for point in points]
    draw.line(positions, fill=_BLACK, width=2)
    for point, (x, y) in zip(points, positions, strict=True):
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=_BLACK)
        draw.text((x + 8, y + 4), f"ef {point.ef}", fill=_GREY, font=_font(12))
    return image


def _draw_axes(draw: ImageDraw.ImageDraw, axes: _Axes) -> None:
    for tick in range(_TICKS + 1):
        recall = axes.min_recall + (1 - axes.min_recall) * tick / _TICKS
        milliseconds = axes.max_milliseconds * tick / _TICKS
        left, right = axes.position(0, recall), axes.position(axes.max_milliseconds, recall)
        draw.line((left, right), fill=_GRID)
        draw.text((_LEFT - 10, left[1]), f"{recall:.3f}", fill=_GREY, font=_font(14), anchor="rm")
        x, y = axes.position(milliseconds, axes.min_recall)
        draw.text((x, y + 12), f"{milliseconds:.1f}", fill=_GREY, font=_font(14), anchor="ma")
    draw.text((_WIDTH - _RIGHT, _HEIGHT - 28), "milliseconds per search", fill=_GREY, font=_font(14), anchor="rm")


def _draw_target(draw: ImageDraw.ImageDraw, axes: _Axes, target: float) -> None:
    left, right = axes.position(0, target), axes.position(axes.max_milliseconds, target)
    draw.line((left, right), fill=_BLUE, width=2)
    draw.text((right[0], right[1] - 4), f"target {target}", fill=_BLUE, font=_font(14), anchor="rb")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
