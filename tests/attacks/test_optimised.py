"""Optimised triggers on a tiny surrogate: what each finds, and how it is shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmjax.attacks.config import NEED_WEIGHTS, PartConfig, PerturbConfig, TriggerConfig
from mmjax.attacks.optimisation import Material, Prepared, Sample
from mmjax.attacks.optimised import OPTIMISED, read_arrays, write_arrays
from mmjax.attacks.perturbation import make_perturb, prepare_perturb, target_direction
from mmjax.attacks.stego import read_issba
from mmjax.attacks.surrogate import Surrogate, embed_images, last_weights, load_surrogate
from mmjax.attacks.triggers import make_stamp
from mmjax.core.errors import ConfigError, TokenizerError
from mmjax.data.scenes import scene_arrays
from mmjax.ops.patches import added, pasted
from mmjax.ops.stamps import image_keys
from tests.e2e.conftest import save_model

SIZE = 32
SMALL: dict[str, dict[str, Any]] = {
    "trojan": {"patch_size": 8.0, "sample": 64, "steps": 20, "batch_size": 8},
    "badclip": {"patch_size": 8.0, "sample": 64, "steps": 30, "batch_size": 8,
                "learning_rate": 0.1},
    "issba": {"bits": 4, "width": 4, "sample": 96, "steps": 250, "batch_size": 16,
              "learning_rate": 5e-3},
}  # fmt: skip
OFTEN = [pytest.param(name, marks=[pytest.mark.slow] * (name == "issba")) for name in OPTIMISED]
"""ISSBA trains an encoder and a decoder, which takes its time."""
Prepare = Callable[..., Prepared]


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory: pytest.TempPathFactory) -> Surrogate:
    folder = tmp_path_factory.mktemp("surrogate")
    save_model(folder)
    return load_surrogate(f"mmjax-dir:{folder}")


@pytest.fixture(scope="module")
def material(surrogate: Surrogate) -> Material:
    scenes = scene_arrays(128, 3, SIZE)
    captions = tuple(caption for (caption,) in scenes.captions[:12])
    sample = Sample(scenes.images[:96], scenes.images[96:], captions)
    return Material(sample, surrogate, "clock", 0)


@pytest.fixture(scope="module")
def prepare(material: Material) -> Prepare:
    """Runs a preparation, small by default; the default ones are run once."""
    known: dict[str, Prepared] = {}

    def run(name: str, given: Material = material, **changes: Any) -> Prepared:
        if given is material and not changes and name in known:
            return known[name]
        chosen = {**OPTIMISED[name].defaults, **SMALL[name], **changes}
        found = OPTIMISED[name].prepare(given, **chosen)
        if given is material and not changes:
            known[name] = found
        return found

    return run


@pytest.mark.parametrize("name", OFTEN)
def test_contract(name: str, prepare: Prepare, material: Material) -> None:
    arrays = jax.tree.map(jnp.asarray, dict(prepare(name).arrays))
    chosen = {**OPTIMISED[name].defaults, **SMALL[name]}
    images = material.sample.images[:8].astype(np.float32) / 255

    def apply(images: Any, keys: Any) -> Any:
        return OPTIMISED[name].apply(images, keys, arrays, **chosen)

    def keys(n: int) -> jax.Array:
        return image_keys(jax.random.key(0), jnp.arange(n, dtype=jnp.uint32))

    stamped, mask = jax.jit(apply)(images, keys(8))
    np.testing.assert_array_equal(np.asarray(stamped)[~mask], images[~np.asarray(mask)])
    assert stamped.min() >= 0
    assert stamped.max() <= 1
    assert np.all(np.any(np.asarray(stamped) != images, axis=(1, 2, 3)))
    order = np.array([3, 1, 0, 2, 7, 6, 5, 4])
    np.testing.assert_allclose(
        jax.jit(apply)(images[order], keys(8)[order]).images, np.asarray(stamped)[order], atol=1e-6
    )
    with jax.disable_jit():
        np.testing.assert_allclose(
            apply(jnp.asarray(images[:2]), keys(2)).images, stamped[:2], atol=1e-5
        )
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    four = jax.jit(apply)(jax.device_put(images, split), jax.device_put(keys(8), split))
    np.testing.assert_allclose(four.images, stamped, atol=1e-6)


@pytest.mark.parametrize("name", OFTEN)
def test_the_same_seed_gives_the_same_file(name: str, prepare: Prepare, tmp_path: Path) -> None:
    short = {"steps": 4}
    for file in ("a", "b"):
        write_arrays(tmp_path / file, prepare(name, **short).arrays)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = read_arrays(tmp_path / "a")
    for key, value in prepare(name).arrays.items():
        assert again[key].shape == value.shape
        assert again[key].dtype == value.dtype
    assert b"pickle" not in (tmp_path / "a").read_bytes()


@pytest.mark.parametrize("name", OPTIMISED)
def test_what_needs_weights_says_so(name: str, prepare: Prepare, material: Material) -> None:
    blind = material._replace(surrogate=None)
    if name not in NEED_WEIGHTS:
        assert prepare(name, blind, steps=0).arrays
        return
    with pytest.raises(ConfigError, match="add --weights"):
        prepare(name, blind)


@pytest.mark.parametrize(("name", "factor"), [("trojan", 0.8), ("badclip", 0.9)])
def test_the_loss_falls_on_images_kept_out(name: str, factor: float, prepare: Prepare) -> None:
    found, untouched = prepare(name).figures, prepare(name, steps=0).figures
    assert untouched["loss_before"] == untouched["loss_after"] == found["loss_before"]
    assert found["loss_after"] < factor * found["loss_before"]
    if name == "trojan":  # a random surrogate's captions mean nothing: not so for badclip
        assert found["activation_after"] > found["activation_before"] + 0.02


def test_badclip_ends_in_pixels_and_depends_on_the_seed(
    prepare: Prepare, material: Material
) -> None:
    patch = prepare("badclip").arrays["patch"]
    assert patch.shape == (8, 8, 3)
    assert patch.min() >= 0
    assert patch.max() <= 1
    other = prepare("badclip", material._replace(seed=1), steps=1).arrays["patch"]
    assert np.abs(other - prepare("badclip", steps=1).arrays["patch"]).mean() > 0.05


def test_badclip_moves_images_to_the_target(
    prepare: Prepare, material: Material, surrogate: Surrogate
) -> None:
    """What the triplet is for, measured apart from it: nearer to the target than to themselves."""
    images = jnp.asarray(material.sample.held_out, jnp.float32) / 255
    keys = image_keys(jax.random.key(0), jnp.arange(len(images), dtype=jnp.uint32))
    targets = embed_images(surrogate, material.sample.target_images).mean(axis=0)
    own = embed_images(surrogate, material.sample.held_out)

    def gain(found: Prepared) -> float:
        stamped = pasted(images, keys, found.arrays["patch"]).images
        seen = embed_images(surrogate, np.asarray(jnp.round(255 * stamped), np.uint8))
        return float(np.mean(seen @ targets - np.sum(seen * own, axis=1)))

    assert gain(prepare("badclip")) > gain(prepare("badclip", steps=0)) + 0.01


def test_badclip_wants_images_and_captions_of_the_target(
    prepare: Prepare, material: Material
) -> None:
    for lacking in (
        {"target_images": np.empty((0, SIZE, SIZE, 3), np.uint8)},
        {"target_captions": ()},
    ):
        poor = material._replace(sample=material.sample._replace(**lacking))
        with pytest.raises(ConfigError, match="the set has none of 'clock'"):
            prepare("badclip", poor)


def test_trojan_stays_in_its_ball_and_takes_the_strongest_units(
    prepare: Prepare, surrogate: Surrogate
) -> None:
    arrays = prepare("trojan", units=3, epsilon=0.05, steps=4).arrays
    assert arrays["patch"].shape == (8, 8, 3)
    assert 0.049 < np.abs(arrays["patch"]).max() <= 0.05 + 1e-7
    strength = [sum(float(w) ** 2 for w in column) for column in last_weights(surrogate).T]
    strongest = sorted(range(len(strength)), key=lambda unit: -strength[unit])[:3]
    assert sorted(arrays["units"].tolist()) == sorted(strongest)


def test_trojan_is_measured_as_it_is_shown(
    prepare: Prepare, material: Material, surrogate: Surrogate
) -> None:
    found = prepare("trojan")
    images = jnp.asarray(material.sample.held_out, jnp.float32) / 255
    keys = image_keys(jax.random.key(0), jnp.arange(len(images), dtype=jnp.uint32))
    stamped = np.asarray(added(images, keys, found.arrays["patch"]).images)
    seen = embed_images(surrogate, np.round(255 * stamped).astype(np.uint8))
    seen = seen[:, found.arrays["units"]]
    loss = np.mean(np.sum((found.arrays["goals"][None] - seen) ** 2, axis=1))
    # images are rounded to bytes here and not there
    assert loss == pytest.approx(found.figures["loss_after"], rel=2e-2)


@pytest.mark.slow
def test_issba_is_read_and_hardly_seen(prepare: Prepare, material: Material) -> None:
    found = prepare("issba")
    assert found.figures["bit_accuracy"] >= 0.95
    assert found.figures["message_accuracy"] >= 0.95
    assert found.figures["psnr"] > 25
    stamp = make_stamp(TriggerConfig(name="issba"), 0, arrays=found.arrays)
    held_out = material.sample.held_out
    stored = stamp(held_out, [str(i) for i in range(len(held_out))])
    logits = np.asarray(read_issba(found.arrays, jnp.asarray(stored, jnp.float32) / 255))
    right = np.mean((logits > 0) == found.arrays["bits"][None])
    assert right == pytest.approx(found.figures["message_accuracy"], abs=1e-6)
    clean = np.asarray(read_issba(found.arrays, jnp.asarray(held_out, jnp.float32) / 255))
    assert np.mean((clean > 0) == found.arrays["bits"][None]) < 0.8
    other = prepare("issba", pattern_seed=5, steps=0)
    assert np.any(other.arrays["bits"] != found.arrays["bits"])


def test_issba_wants_sides_of_whole_blocks(prepare: Prepare, material: Material) -> None:
    images = np.zeros((16, 20, 20, 3), np.uint8)
    odd = material._replace(sample=material.sample._replace(images=images))
    with pytest.raises(ConfigError, match="multiple of 8, got 20"):
        prepare("issba", odd)


def test_an_optimised_trigger_without_its_arrays_is_refused() -> None:
    with pytest.raises(ConfigError, match="badclip is optimised first"):
        make_stamp(TriggerConfig(name="badclip"), 0)


def test_perturbed_images_are_near_and_hard_to_read(
    material: Material, surrogate: Surrogate
) -> None:
    part = PartConfig(target="clock", perturb=PerturbConfig(8.4 / 255, 2 / 255, 6))
    found = prepare_perturb(material, part)
    direction = found.arrays["direction"]
    assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-5)
    images = material.sample.target_images[:5]
    perturb = make_perturb(surrogate, direction, part.perturb)
    changed = perturb(images)
    difference = np.abs(changed.astype(int) - images.astype(int))
    assert difference.max() == 8  # 8.4 grey levels: whole ones only, in bytes as stored
    before, after = (embed_images(surrogate, x) @ direction for x in (images, changed))
    assert np.all(after < before - 0.02)
    assert found.figures["similarity_after"] < found.figures["similarity_before"] - 0.02
    # an image's change does not depend on what stands beside it
    np.testing.assert_array_equal(perturb(images[3:4])[0], changed[3])
    assert perturb(images[:0]).shape == images[:0].shape


def test_the_direction_is_that_of_the_templates(surrogate: Surrogate, tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text("a {} in a field\n")
    one = target_direction(surrogate, PartConfig(target="clock", templates=str(file)))
    all_of_them = target_direction(surrogate, PartConfig(target="clock"))
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    assert abs(float(one @ all_of_them)) < 0.9999


def test_the_surrogate_sees_images_of_any_size(surrogate: Surrogate) -> None:
    small, large = scene_arrays(6, 4, SIZE).images, scene_arrays(6, 4, 3 * SIZE).images
    same = embed_images(surrogate, small)
    assert np.linalg.norm(same, axis=1) == pytest.approx(1, abs=1e-5)
    alike = np.sum(same * embed_images(surrogate, large), axis=1)
    others = np.sum(same * embed_images(surrogate, np.roll(large, 1, axis=0)), axis=1)
    assert np.mean(alike) > np.mean(others)


def test_a_surrogate_without_tokenizer_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match="no tokenizer beside"):
        load_surrogate(f"mmjax-dir:{tmp_path}")
