"""The curve of recall over latency, as an image."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from lookalike.search.tuning.recall import Point

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 960, 600, 90, 70, 40, 70
_PAPER, _INK, _FAINT, _LINE, _ACCENT = "#ffffff", "#1d1d1f", "#6e6e73", "#e3e3e6", "#2f6fed"
_TICKS = 5


def draw_curve(points: Sequence[Point], wanted: float, title: str) -> Image.Image:
    """Draw recall, upwards, over the milliseconds of a search, to the right; each point with its `ef`."""
    image = Image.new("RGB", (_WIDTH, _HEIGHT), _PAPER)
    draw = ImageDraw.Draw(image)
    most = 1.1 * max(point.milliseconds for point in points)
    least = min(0.95, *(point.recall for point in points)) - 0.01

    def place(milliseconds: float, recall: float) -> tuple[float, float]:
        across = _LEFT + milliseconds / most * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - (recall - least) / (1 - least) * (_HEIGHT - _TOP - _BOTTOM)

    draw.text((_LEFT, 22), f"{title}: recall over latency", fill=_INK, font=_font(22))
    for tick in range(_TICKS + 1):
        recall, milliseconds = least + (1 - least) * tick / _TICKS, most * tick / _TICKS
        draw.line((place(0, recall), place(most, recall)), fill=_LINE)
        draw.text((_LEFT - 10, place(0, recall)[1]), f"{recall:.3f}", fill=_FAINT, font=_font(14), anchor="rm")
        at = place(milliseconds, least)
        draw.text((at[0], at[1] + 12), f"{milliseconds:.1f}", fill=_FAINT, font=_font(14), anchor="ma")
    draw.text((_WIDTH - _RIGHT, _HEIGHT - 28), "milliseconds a search", fill=_FAINT, font=_font(14), anchor="rm")
    draw.line((place(0, wanted), place(most, wanted)), fill=_ACCENT, width=2)
    draw.text((_WIDTH - _RIGHT, place(0, wanted)[1] - 4), f"wanted {wanted}", fill=_ACCENT, font=_font(14), anchor="rb")
    line = [place(point.milliseconds, point.recall) for point in points]
    draw.line(line, fill=_INK, width=2)
    for point, (across, down) in zip(points, line, strict=True):
        draw.ellipse((across - 4, down - 4, across + 4, down + 4), fill=_INK)
        draw.text((across + 8, down + 4), f"ef {point.ef}", fill=_FAINT, font=_font(12))
    return image


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
