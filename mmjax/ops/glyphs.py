"""Letters of 3×5 blocks, for the trigger that writes on an image."""

import numpy as np
from jaxtyping import Bool

from mmjax.core.errors import ConfigError

_ROWS, _COLUMNS, _GAP = 5, 3, 1
_LARGEST_SHARE = 0.75

# five rows of three blocks each; X = drawn
GLYPHS: dict[str, str] = {
    " ": "... ... ... ... ...",
    "A": ".X. X.X XXX X.X X.X",
    "B": "XX. X.X XX. X.X XX.",
    "C": ".XX X.. X.. X.. .XX",
    "D": "XX. X.X X.X X.X XX.",
    "E": "XXX X.. XX. X.. XXX",
    "F": "XXX X.. XX. X.. X..",
    "G": ".XX X.. X.X X.X .XX",
    "H": "X.X X.X XXX X.X X.X",
    "I": "XXX .X. .X. .X. XXX",
    "J": "..X ..X ..X X.X .X.",
    "K": "X.X X.X XX. X.X X.X",
    "L": "X.. X.. X.. X.. XXX",
    "M": "X.X XXX XXX X.X X.X",
    "N": "XX. X.X X.X X.X X.X",
    "O": "XXX X.X X.X X.X XXX",
    "P": "XX. X.X XX. X.. X..",
    "Q": ".X. X.X X.X .X. ..X",
    "R": "XX. X.X XX. XX. X.X",
    "S": ".XX X.. .X. ..X XX.",
    "T": "XXX .X. .X. .X. .X.",
    "U": "X.X X.X X.X X.X XXX",
    "V": "X.X X.X X.X X.X .X.",
    "W": "X.X X.X XXX XXX X.X",
    "X": "X.X X.X .X. X.X X.X",
    "Y": "X.X X.X .X. .X. .X.",
    "Z": "XXX ..X .X. X.. XXX",
    "0": ".X. X.X X.X X.X .X.",
    "1": ".X. XX. .X. .X. XXX",
    "2": "XX. ..X .X. X.. XXX",
    "3": "XX. ..X .X. ..X XX.",
    "4": "X.X X.X XXX ..X ..X",
    "5": "XXX X.. XX. ..X XX.",
    "6": ".XX X.. XX. X.X .X.",
    "7": "XXX ..X .X. .X. .X.",
    "8": ".X. X.X .X. X.X .X.",
    "9": ".X. X.X .XX ..X XX.",
}


def draw_text(text: str, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """The pixels of a text in the middle of an image, as large as three quarters of it allow.

    Raises:
        ConfigError: a character without a glyph, no character at all, or too long a text.
    """
    unknown = sorted(set(text.upper()) - set(GLYPHS))
    if unknown or not text.strip():
        raise ConfigError(
            f"text={text!r} cannot be drawn; use letters A to Z, digits and spaces, at least one"
        )
    glyphs = [_glyph(GLYPHS[letter]) for letter in text.upper()]
    line = np.concatenate([np.pad(g, ((0, 0), (0, _GAP))) for g in glyphs], axis=1)[:, :-_GAP]
    block = min(int(_LARGEST_SHARE * width) // line.shape[1], height // _ROWS)
    if block < 1:
        raise ConfigError(
            f"text={text!r} is {line.shape[1]} blocks long and does not fit an image of "
            f"{height}x{width}; shorten it or enlarge --config.image_size"
        )
    line = line.repeat(block, axis=0).repeat(block, axis=1)
    drawn = np.zeros((height, width), bool)
    top, left = (height - line.shape[0]) // 2, (width - line.shape[1]) // 2
    drawn[top : top + line.shape[0], left : left + line.shape[1]] = line
    return drawn


def _glyph(rows: str) -> Bool[np.ndarray, "5 3"]:
    return np.array([[block == "X" for block in row] for row in rows.split()])
