"""What all optimised triggers share: what they start from, what they end in, the training loop."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import UInt8

from mmjax.attacks.config import PartConfig
from mmjax.attacks.surrogate import Surrogate
from mmjax.core.config import MeshConfig
from mmjax.core.errors import ConfigError
from mmjax.core.mesh import make_mesh
from mmjax.core.progress import meter
from mmjax.learn.loop import BatchAt, fit
from mmjax.learn.state import create
from mmjax.learn.step import LossFn, make_step

PyTree = Any

HELD_OUT = 8
"""One image in so many is kept out of the optimisation, to measure what it achieved."""
_FEWEST = 16


class Sample(NamedTuple):
    """Different images of the set, at the size at which they are stored."""

    images: UInt8[np.ndarray, "n s s 3"]
    """Of pairs whose captions do not name the target."""
    target_images: UInt8[np.ndarray, "m s s 3"]
    """Of pairs whose captions name it."""
    target_captions: tuple[str, ...]
    """Different captions that name it, those that the attack uses (`pool`)."""

    @property
    def fit(self) -> UInt8[np.ndarray, "k s s 3"]:
        """The images that are optimised on."""
        return self.images[len(self.images) // HELD_OUT :]

    @property
    def held_out(self) -> UInt8[np.ndarray, "k s s 3"]:
        """The others."""
        return self.images[: len(self.images) // HELD_OUT]

    def enough_for(self, part: PartConfig) -> "Sample":
        """Itself; raises ConfigError if it holds fewer than 16 images to optimise a trigger on."""
        if len(self.images) < _FEWEST:
            raise ConfigError(
                f"{part.label} is optimised on images that do not show {part.target!r}, at least "
                f"{_FEWEST}; {len(self.images)} can be read"
            )
        return self


class Material(NamedTuple):
    """What a trigger is optimised with."""

    sample: Sample
    surrogate: Surrogate | None
    target: str
    seed: int

    def surrogate_or_raise(self) -> Surrogate:
        """The surrogate; raises ConfigError if there is none."""
        if self.surrogate is None:
            raise ConfigError("the trigger is optimised against a CLIP; add --weights=KIND:FOLDER")
        return self.surrogate


class Prepared(NamedTuple):
    """A trigger's preparation: the arrays that it is from now on, and what was measured."""

    arrays: Mapping[str, np.ndarray]
    figures: Mapping[str, float]


def before_and_after(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Measures before and after the optimisation as the manifest names them."""
    return {
        f"{name}_{when}": value
        for when, found in (("before", before), ("after", after))
        for name, value in found.items()
    }


def fit_arrays(
    start: PyTree,
    model_state: PyTree,
    loss_fn: LossFn,
    batch_at: BatchAt,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    key: jax.Array,
    what: str,
    project: Callable[[PyTree], PyTree] | None = None,
) -> PyTree:
    """The parameters after `steps` steps of `learn.loop.fit`.

    On one device, however many there are: the same seed gives the same arrays on any number.

    Raises:
        NonFiniteLossError: the loss is no number any more.
    """
    mesh = make_mesh(MeshConfig(data=1))
    state = create(start, model_state, optimizer)
    with contextlib.closing(meter(steps, f"optimising {what}", unit="steps")) as done:

        def tell(step: int, values: dict[str, float]) -> None:
            done.update(1)

        state = fit(
            state,
            make_step(loss_fn, optimizer, project),
            batch_at,
            steps=steps,
            key=key,
            mesh=mesh,
            on_metrics=tell,
        )
    return state.params
