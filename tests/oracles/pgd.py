"""Signed steps on a lattice of bytes, pixel by pixel, for the loss sum of w (x + d - g)^2."""

import numpy as np


def lattice(
    image: np.ndarray,
    noise: np.ndarray,
    goal: np.ndarray,
    weight: np.ndarray,
    *,
    epsilon: int,
    step_size: int,
    steps: int,
) -> np.ndarray:
    """The noise after `steps`; a negative step size raises the loss."""
    found = noise.astype(int).copy()
    for _ in range(steps):
        for at in np.ndindex(image.shape):
            slope = 2 * float(weight[at]) * (int(image[at]) + found[at] - float(goal[at]))
            moved = found[at] - step_size * int(np.sign(slope))
            moved = min(max(moved, -epsilon), epsilon)
            found[at] = min(max(int(image[at]) + moved, 0), 255) - int(image[at])
    return found
