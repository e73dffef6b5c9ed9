"""The tiny models, one after the other."""

import functools

import pytest

from mmjax.models.clip import build
from mmjax.models.layouts import origin, read, shapes
from mmjax.models.presets import Preset
from tests.models.tiny import RESNET, VIT, fill_values


def filled(preset: Preset):
    """Variables of `preset` by the values that open_clip's model would be filled with."""
    origins = [origin(path, shape, "open_clip") for path, shape in shapes(preset).items()]
    values = fill_values({source.names[0]: source.shape for source in origins}, seed=7)
    available = {name: value.shape for name, value in values.items()}
    return read(preset, "open_clip", available, values.__getitem__)


@pytest.fixture(scope="session", params=[VIT, RESNET], ids=lambda preset: preset.name)
def tiny(request) -> Preset:
    """Each kind of image tower in turn."""
    return request.param


@functools.cache
def _built(preset: Preset):
    return build(preset), filled(preset)


@pytest.fixture(scope="session")
def model(tiny):
    """Float32 towers of the tiny model and variables for them.

    The same ones, hence the same compiled programs, when pytest comes back to a model.
    """
    return _built(tiny)
