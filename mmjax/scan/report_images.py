"""Pictures of the report: thumbnails, and the mean images that make a fixed trigger visible."""

import base64
import io
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.stats import chi2

from mmjax.core.errors import ImageError
from mmjax.data.images import read_rgb

THUMBNAIL_SIDE = 160
"""Longest side of a thumbnail in pixels."""
MINIATURE_SIDE = 112
"""Longest side of a picture that stands in a row of many."""

FEW_FLAGGED = 10
"""Below this number of flagged images their mean says little."""

_SAME = 0.25  # variance among the flagged over variance among the benign: "hardly differ"
_CHANCE = 1e-5  # how rarely so small a ratio may arise by chance at one pixel
_FADED = 16.0  # squared standard errors at which half of a difference is shown
_FLAT = 25.0  # variance below which a pixel hardly differs among benign images either


class MeanImages(NamedTuple):
    """Mean flagged and mean benign image and how they differ, all float32 [h, w, 3].

    `flagged` and `benign` hold pixel values in [0, 255]; `difference` is 128 + gain · w · (flagged
    − benign), clipped to [0, 255], where w = t² / (t² + 16) fades what chance explains (t is the
    difference in standard errors, its square averaged over the channels); `spread` is the
    per-pixel variance among the flagged images over that among the benign ones (mean over the
    channels, smoothed over 3×3 pixels): near 0 where the flagged images share the same pixels,
    1 where the benign images hardly differ either.
    """

    flagged: Float[np.ndarray, "h w 3"]
    benign: Float[np.ndarray, "h w 3"]
    difference: Float[np.ndarray, "h w 3"]
    spread: Float[np.ndarray, "h w"]
    gain: float
    flagged_count: int
    benign_count: int


def mean_images(
    flagged: UInt8[np.ndarray, "n h w 3"], benign: UInt8[np.ndarray, "m h w 3"]
) -> MeanImages | None:
    """Returns the two means, their amplified difference and the ratio of their variances.

    The gain brings the largest 0.1 % of the differences to full contrast (a small trigger then
    stands out from the rest), but is at most 32 so that noise does not become a picture.

    Returns:
        None when one of the two sets is empty.
    """
    if len(flagged) == 0 or len(benign) == 0:
        return None
    flagged_mean, flagged_variance = _moments(flagged)
    benign_mean, benign_variance = _moments(benign)
    delta = flagged_mean - benign_mean
    error = np.maximum(benign_variance, 1.0) * (1 / len(flagged) + 1 / len(benign))
    squared_t = np.mean(delta * delta / error, axis=-1, keepdims=True)
    delta *= squared_t / (squared_t + _FADED)
    gain = float(np.clip(127 / max(float(np.quantile(np.abs(delta), 0.999)), 1e-6), 1, 32))
    usual = benign_variance.mean(-1)
    ratio = np.where(usual < _FLAT, 1.0, flagged_variance.mean(-1) / np.maximum(usual, _FLAT))
    return MeanImages(
        flagged=flagged_mean.astype(np.float32),
        benign=benign_mean.astype(np.float32),
        difference=np.clip(128 + gain * delta, 0, 255).astype(np.float32),
        spread=_smooth(ratio).astype(np.float32),
        gain=gain,
        flagged_count=len(flagged),
        benign_count=len(benign),
    )


def _moments(
    images: UInt8[np.ndarray, "n h w 3"],
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 3"]]:
    """Mean and (biased) variance by exact integer sums, one image at a time."""
    total = np.zeros(images.shape[1:], np.int64)
    squares = np.zeros(images.shape[1:], np.int64)
    for image in images:
        pixels = image.astype(np.int64)
        total += pixels
        squares += pixels * pixels
    mean = total / len(images)
    return mean, squares / len(images) - mean * mean


def _smooth(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Mean over 3×3 pixels, edges repeated."""
    padded = np.pad(values, 1, mode="edge")
    height, width = values.shape
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.mean(shifted, axis=0)


class SharedArea(NamedTuple):
    """The part of the picture in which the flagged images hardly differ from one another."""

    share: float
    place: str


def shared_area(means: MeanImages) -> SharedArea | None:
    """Returns where the flagged images share the same pixels, None when nowhere.

    A pixel counts when the variance among the n flagged images is under a quarter of that among
    the benign ones and below the 1e-5 quantile of χ²(n − 1)/(n − 1), the ratio that chance gives
    to Gaussian pixels. With fewer than `FEW_FLAGGED` images nothing counts.
    """
    if means.flagged_count < FEW_FLAGGED:
        return None
    freedom = means.flagged_count - 1
    same = means.spread < min(_SAME, float(chi2.ppf(_CHANCE, freedom)) / freedom)
    if not same.any():
        return None
    share = float(same.mean())
    return SharedArea(share, "the whole picture" if share > 0.5 else _place(same))


def _place(mask: Bool[np.ndarray, "h w"]) -> str:
    """Names the ninth of the picture that holds the middle of the mask."""
    rows, columns = np.nonzero(mask)
    row = int(3 * (np.median(rows) + 0.5) / mask.shape[0])
    column = int(3 * (np.median(columns) + 0.5) / mask.shape[1])
    vertical, horizontal = ("upper", "", "lower")[row], ("left", "", "right")[column]
    if vertical and horizontal:
        return f"the {vertical} {horizontal} corner"
    if vertical:
        return "the upper edge" if vertical == "upper" else "the lower edge"
    return f"the {horizontal} edge" if horizontal else "the middle"


def thumbnail(data: bytes) -> bytes | None:
    """Returns a PNG of the whole image with no side over `THUMBNAIL_SIDE`, None if it cannot be.

    Unlike the scan's own geometry nothing is cropped: a trigger may sit in a corner.
    """
    image = _read(data)
    if image is None:
        return None
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
    return encode_png(np.asarray(image))


def miniature(png: bytes) -> bytes:
    """Returns a thumbnail as a JPEG with no side over `MINIATURE_SIDE`, a tenth of its bytes."""
    image = Image.open(io.BytesIO(png))
    image.thumbnail((MINIATURE_SIDE, MINIATURE_SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85, subsampling=0)
    return buffer.getvalue()


def squash(data: bytes, side: int) -> UInt8[np.ndarray, "side side 3"] | None:
    """Returns the whole image squashed to a square, so that corners fall on corners."""
    image = _read(data)
    if image is None:
        return None
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def _read(data: bytes) -> Image.Image | None:
    """The image as the scan decodes it, None where it does not."""
    try:
        return read_rgb(data)
    except ImageError:
        return None


def encode_png(pixels: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"]) -> bytes:
    """Encodes pixels as PNG; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(image: bytes, kind: Literal["png", "jpeg"] = "png") -> str:
    """Returns the image as a `data:` address that a page can hold in itself."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"
