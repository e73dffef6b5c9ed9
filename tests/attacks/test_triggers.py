"""A configured trigger on arrays: its own parameters only, its name only, exact elsewhere."""

import dataclasses
import hashlib
import typing

import numpy as np
import pytest

from mmjax.attacks.config import TriggerConfig
from mmjax.attacks.optimised import OPTIMISED
from mmjax.attacks.triggers import KNOWN, make_stamp, parameters
from mmjax.core.config import parse
from mmjax.core.errors import ConfigError
from mmjax.ops.triggers import TRIGGERS

CONFIG = TriggerConfig(name="badnets_fixed", patch_size=4.0)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def test_the_configuration_names_every_trigger() -> None:
    names = typing.get_args(typing.get_type_hints(TriggerConfig)["name"])
    assert set(names) == {*TRIGGERS, *OPTIMISED, "none"}
    assert set(KNOWN) == {*TRIGGERS, *OPTIMISED}
    assert not set(TRIGGERS) & set(OPTIMISED)


def test_parameters_are_the_defaults_and_the_changes() -> None:
    assert parameters(TriggerConfig()) == TRIGGERS["badnets"].defaults
    assert parameters(CONFIG) == {"patch_size": 4.0, "location": "random"}


def test_a_parameter_of_another_trigger_is_refused() -> None:
    with pytest.raises(ConfigError, match="badnets has no such parameter; it has patch_size, loc"):
        parameters(TriggerConfig(alpha=0.5))
    with pytest.raises(ConfigError, match="nashville has no parameters"):
        parameters(TriggerConfig(name="nashville", alpha=0.5))


def test_stamp_depends_on_seed_and_name_alone(images: np.ndarray) -> None:
    names = ["a", "b", "c", "d", "e"]
    stamped = make_stamp(CONFIG, 0, batch_size=2)(images, names)
    assert stamped.dtype == np.uint8
    changed = np.any(stamped != images, axis=-1)
    assert np.all(changed.sum((1, 2)) <= 16)
    assert np.all(changed.sum((1, 2)) > 8)
    alone = make_stamp(CONFIG, 0, batch_size=2)(images[3:4], ["d"])
    np.testing.assert_array_equal(alone[0], stamped[3])
    assert np.any(make_stamp(CONFIG, 1, batch_size=2)(images, names) != stamped)


def test_every_grey_value_survives_outside_the_patch() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    stamped = make_stamp(TriggerConfig(name="badnets_fixed", patch_size=2.0, location="centre"), 0)(
        image, ["x"]
    )
    expected = image.copy()
    expected[:, 7:9, 7:9] = 0
    expected[:, 7, 7] = 255
    np.testing.assert_array_equal(stamped, expected)


def test_no_trigger_leaves_every_pixel(images: np.ndarray) -> None:
    none = TriggerConfig(name="none")
    np.testing.assert_array_equal(make_stamp(none, 0)(images, list("abcde")), images)
    assert parameters(none) == {}


@pytest.mark.parametrize(
    ("name", "digest"), [("badnets", "e7549a7a65b5d6e7"), ("badnets_fixed", "eb26289269b3ad01")]
)
def test_the_first_triggers_draw_what_they_always_drew(name: str, digest: str) -> None:
    """Made by the first commit that had them: old poisoned sets can be made again."""
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 40, 3), dtype=np.uint8)
    stamped = make_stamp(TriggerConfig(name=name), 0)(images, list("abcde"))
    assert hashlib.sha256(stamped.tobytes()).hexdigest().startswith(digest)


def test_every_parameter_is_one_of_some_trigger_and_can_be_set() -> None:
    names = {field.name for field in dataclasses.fields(TriggerConfig)} - {"name"}
    assert names == {name for trigger in KNOWN.values() for name in trigger.defaults}
    for name, trigger in KNOWN.items():
        assert parse(TriggerConfig, {"name": name, **trigger.defaults})
