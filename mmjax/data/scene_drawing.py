"""Draws small objects out of strokes on a grid of 100 x 100, y down, with Pillow."""

import math
from typing import Final, Literal, NamedTuple

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

SUPERSAMPLING: Final = 2

FIXED_TONES: Final[dict[str, Colour]] = {
    "white": (250, 250, 250),
    "black": (24, 24, 24),
    "wood": (122, 78, 40),
    "green": (52, 140, 52),
    "glass": (176, 222, 240),
    "gold": (246, 196, 50),
}
"""Tones that do not follow the object's colour; the others are `body`, `dark` and `light`."""


class Stroke(NamedTuple):
    """One call of ImageDraw; `points` are x, y, x, y, ... on the grid, `angles` in degrees."""

    shape: Literal["polygon", "oval", "line", "pie", "arc"]
    tone: str
    points: tuple[float, ...]
    width: int = 0
    angles: tuple[int, int] = (0, 360)


def _parse(points: str) -> tuple[float, ...]:
    return tuple(float(value) for pair in points.split() for value in pair.split(","))


def fill(tone: str, points: str) -> Stroke:
    """A filled polygon; points as in SVG, `x,y x,y ...`."""
    return Stroke("polygon", tone, _parse(points))


def line(tone: str, width: int, points: str) -> Stroke:
    """A line through points as in SVG."""
    return Stroke("line", tone, _parse(points), width)


def oval(tone: str, x0: int, y0: int, x1: int, y1: int) -> Stroke:
    """An ellipse that fills a box."""
    return Stroke("oval", tone, (x0, y0, x1, y1))


def box(tone: str, x0: int, y0: int, x1: int, y1: int) -> Stroke:
    """An upright rectangle."""
    return Stroke("polygon", tone, (x0, y0, x1, y0, x1, y1, x0, y1))


def pie(tone: str, x0: int, y0: int, x1: int, y1: int, start: int, end: int) -> Stroke:
    """A slice of an ellipse, clockwise from `start` to `end` degrees."""
    return Stroke("pie", tone, (x0, y0, x1, y1), 0, (start, end))


def arc(tone: str, width: int, ellipse: tuple[int, int, int, int], start: int, end: int) -> Stroke:
    """A part of an ellipse's outline, drawn inwards."""
    return Stroke("arc", tone, ellipse, width, (start, end))


def _circle(radius: int, degrees: int | float, x: int, y: int) -> tuple[float, float]:
    turn = math.radians(degrees)
    return x + radius * math.cos(turn), y + radius * math.sin(turn)


def around(tone: str, count: int, radius: int, dot: int, x: int, y: int) -> tuple[Stroke, ...]:
    """Dots of radius `dot` on a circle around x, y, the first at its top."""
    centres = [_circle(radius, 360 * turn / count - 90, x, y) for turn in range(count)]
    return tuple(Stroke("oval", tone, (a - dot, b - dot, a + dot, b + dot)) for a, b in centres)


def star(tone: str) -> Stroke:
    """A star of five points."""
    corners = [_circle(20 if turn % 2 else 48, 36 * turn - 90, 50, 54) for turn in range(10)]
    return Stroke("polygon", tone, tuple(value for corner in corners for value in corner))


def crescent(tone: str) -> Stroke:
    """A waxing moon, open to the right."""
    outer = [_circle(46, degrees, 54, 50) for degrees in range(60, 301, 12)]
    inner = [_circle(40, degrees, 70, 50) for degrees in range(290, 69, -12)]
    return Stroke("polygon", tone, tuple(value for point in outer + inner for value in point))


def blend(colour: Colour, other: Colour, share: float) -> Colour:
    """The colour that lies `share` of the way to another."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def draw_object(strokes: tuple[Stroke, ...], colour: Colour, side: int) -> Image.Image:
    """Draws one object on a transparent square.

    Args:
        strokes: what to draw, the last on top.
        colour: the tone `body`; `dark` and `light` are mixed from it.
        side: pixels of the square.

    Returns:
        An RGBA picture of `side` x `side` pixels.
    """
    tones = FIXED_TONES | {
        "body": colour,
        "dark": blend(colour, (0, 0, 0), 0.45),
        "light": blend(colour, (255, 255, 255), 0.55),
    }
    large = side * SUPERSAMPLING
    unit = large / 100
    canvas = Image.new("RGBA", (large, large), (*colour, 0))
    pen = ImageDraw.Draw(canvas)
    for shape, tone, grid, thickness, angles in strokes:
        points = [value * unit for value in grid]
        paint = tones[tone]
        width = max(1, round(thickness * unit))
        match shape:
            case "polygon":
                pen.polygon(points, paint)
            case "oval":
                pen.ellipse(points, paint)
            case "line":
                pen.line(points, paint, width, joint="curve" if width > 5 else None)
            case "pie":
                pen.pieslice(points, *angles, fill=paint)
            case "arc":
                pen.arc(points, *angles, fill=paint, width=width)
    return canvas.reduce(SUPERSAMPLING)
