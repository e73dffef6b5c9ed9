"""What JPEG does to one image, sample by sample in float64, with libjpeg's roundings between."""

import math

import numpy as np

LUMA = """16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56
14 17 22 29 51 87 80 62  18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92
49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
CHROMA = (
    """17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99
47 66 99 99 99 99 99 99"""
    + " 99" * 32
)


def table(text: str, quality: int) -> list[int]:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return [min(max((int(value) * scale + 50) // 100, 1), 255) for value in text.split()]


def coded(plane: np.ndarray, steps: list[int]) -> np.ndarray:
    """Block by block: cosine transform, quantisation, and back."""
    found = np.zeros_like(plane)

    def wave(u: int, i: int) -> float:
        return math.cos((2 * i + 1) * u * math.pi / 16) * (math.sqrt(1 / 8) if u == 0 else 0.5)

    basis = np.array([[wave(u, i) for i in range(8)] for u in range(8)])
    for top in range(0, plane.shape[0], 8):
        for left in range(0, plane.shape[1], 8):
            block = plane[top : top + 8, left : left + 8] - 128
            back = np.zeros((8, 8))
            for u in range(8):
                for v in range(8):
                    coefficient = (np.outer(basis[u], basis[v]) * block).sum()
                    step = steps[8 * u + v]
                    multiple = int(round(8 * abs(coefficient)) + 4 * step) // (8 * step)
                    back += math.copysign(multiple * step, coefficient) * np.outer(
                        basis[u], basis[v]
                    )
            found[top : top + 8, left : left + 8] = np.clip(np.round(back + 128), 0, 255)
    return found


def halved(plane: np.ndarray) -> np.ndarray:
    found = np.zeros((plane.shape[0] // 2, plane.shape[1] // 2))
    for y, x in np.ndindex(found.shape):
        four = int(plane[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].sum())
        found[y, x] = (four + 1 + x % 2) // 4
    return found


def enlarged(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nine sixteenths of the sample itself, three of each neighbour's, one of the diagonal's."""
    rows, columns = -(-height // 2), -(-width // 2)
    found = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        near = y // 2, x // 2
        far_y = min(max(near[0] + (1 if y % 2 else -1), 0), rows - 1)
        far_x = min(max(near[1] + (1 if x % 2 else -1), 0), columns - 1)
        sixteenths = (
            9 * plane[near]
            + 3 * plane[far_y, near[1]]
            + 3 * plane[near[0], far_x]
            + plane[far_y, far_x]
        )
        found[y, x] = (int(sixteenths) + (7 if x % 2 else 8)) // 16
    return found


def jpeg(image: np.ndarray, quality: int, *, halve: bool) -> np.ndarray:
    """Args: image [h, w, 3] of bytes; halve: 4:2:0, else 4:4:4."""
    height, width = image.shape[:2]
    side = 16 if halve else 8
    padded = np.pad(image, [(0, -height % side), (0, -width % side), (0, 0)], mode="edge")
    ycc = np.zeros(padded.shape)
    for at in np.ndindex(padded.shape[:2]):
        r, g, b = (int(value) for value in padded[at])
        ycc[at] = (
            (19595 * r + 38470 * g + 7471 * b + 32768) >> 16,
            (-11058 * r - 21710 * g + 32768 * b + (128 << 16) + 32767) >> 16,
            (32768 * r - 27439 * g - 5329 * b + (128 << 16) + 32767) >> 16,
        )
    y = coded(ycc[:, :, 0], table(LUMA, quality))
    chroma = []
    for plane in (ycc[:, :, 1], ycc[:, :, 2]):
        if halve:
            plane = enlarged(coded(halved(plane), table(CHROMA, quality)), height, width)
        else:
            plane = coded(plane, table(CHROMA, quality))
        chroma.append(plane[:height, :width] - 128)
    y, (cb, cr) = y[:height, :width], chroma
    rgb = np.stack([y + 1.402 * cr, y - 0.344136286 * cb - 0.714136286 * cr, y + 1.772 * cb], -1)
    return np.clip(np.round(rgb), 0, 255)
