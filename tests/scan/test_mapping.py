import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import InputError, WeightsError
from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.scan import phases
from mmjax.scan.fitting import Reference, compact, group
from mmjax.scan.mapping import apply_mapping, fit_mapping, load_mapping, save_mapping
from mmjax.scan.options import CaptionerConfig, MappingConfig
from mmjax.scan.ridge import fit_ridge, mean_captions

D = 12
TINY = MappingConfig(
    kind="lm",
    width=16,
    batch_size=16,
    epochs=6.0,
    learning_rate=3e-3,
    warmup=0.1,
    held_out=0.1,
    captioner=CaptionerConfig(
        width=16, layers=1, heads=2, max_length=6, batch_size=32, epochs=3.0, learning_rate=3e-3
    ),
)
BRIEF = dataclasses.replace(TINY, kind="regression", epochs=0.5)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def reference():
    """Images are a rotation of what their two captions share; token ids follow the topic."""
    rng = np.random.default_rng(0)
    topics = unit(rng.normal(size=(6, D)))
    topic = rng.integers(0, 6, 150)
    content = unit(topics[topic] + 0.15 * rng.normal(size=(150, D)))
    rotation = np.linalg.qr(rng.normal(size=(D, D)))[0]
    image_of = np.repeat(np.arange(150), 2)
    text = unit(content[image_of] + 0.05 * rng.normal(size=(300, D)))
    tokens = np.zeros((300, 8), np.int32)
    tokens[:, 0], tokens[:, 1], tokens[:, 2], tokens[:, 3] = 98, 10 + topic[image_of], 7, 99
    return Reference(
        (content @ rotation).astype(np.float32),
        text.astype(np.float32),
        image_of,
        tokens,
        np.full(300, 4, np.int32),
    )


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=2))


@pytest.fixture(scope="module")
def ridge(reference, mesh):
    return fit_mapping(
        reference,
        MappingConfig(kind="ridge"),
        weights_fingerprint="abc",
        key=jax.random.key(0),
        mesh=mesh,
    )


def test_ridge_equals_the_normal_equations(reference):
    everything = group(reference, np.arange(150))
    params, found = fit_ridge(reference, everything, everything)
    y = np.stack([reference.text[2 * i : 2 * i + 2].mean(axis=0) for i in range(150)])
    np.testing.assert_allclose(mean_captions(reference, everything), y, atol=1e-7)
    x = reference.image.astype(np.float64)
    xc, yc = x - x.mean(axis=0), y - y.mean(axis=0)
    kernel = np.linalg.solve(xc.T @ xc + found["ridge_penalty"] * np.eye(D), xc.T @ yc)
    np.testing.assert_allclose(params["kernel"], kernel, atol=1e-5)


def test_ridge_learns_and_says_so(ridge):
    assert ridge.diagnostics["held_out_cosine"] > 0.9
    assert set(ridge.diagnostics) == {
        "ridge_penalty",
        "held_out_cosine",
        "held_out_correlation",
        "held_out_sim_original",
        "held_out_sim_generated",
        "held_out_consistency",
    }
    assert ridge.reference == {
        "images": 142,
        "captions": 284,
        "held_out_images": 8,
        "held_out_captions": 16,
    }


@pytest.mark.parametrize("kind", ["lm", "regression"])
def test_networks_are_the_same_on_a_mesh_that_does_not_divide_the_batch(reference, kind):
    brief = dataclasses.replace(
        TINY,
        kind=kind,
        batch_size=10,
        epochs=1.0,
        captioner=dataclasses.replace(TINY.captioner, batch_size=18, epochs=1.0),
    )
    one, many = (
        fit_mapping(
            reference,
            brief,
            weights_fingerprint="abc",
            key=jax.random.key(0),
            mesh=make_mesh(MeshConfig(data=data)),
        )
        for data in (1, 4)
    )
    assert one.diagnostics["train_cosine"] == pytest.approx(many.diagnostics["train_cosine"], 1e-4)
    for mine, other in zip(jax.tree.leaves(one.params), jax.tree.leaves(many.params), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


@pytest.mark.parametrize("kind", [pytest.param("lm", marks=pytest.mark.slow), "regression"])
@pytest.mark.usefixtures("keys_checked")
def test_networks_learn(reference, mesh, kind, monkeypatch):
    losses, fit = [], phases.fit

    def recorded(*arguments, on_metrics, **options):
        losses.append([])

        def both(step, metrics):
            losses[-1].append(metrics["loss"])
            on_metrics(step, metrics)

        return fit(*arguments, on_metrics=both, **options)

    monkeypatch.setattr(phases, "fit", recorded)
    config = dataclasses.replace(TINY, kind=kind, epochs=16.0)
    mapping = fit_mapping(
        reference,
        config,
        weights_fingerprint="abc",
        key=jax.random.key(0),
        mesh=mesh,
    )
    # F starts as the identity, which the rotation makes worthless
    assert mapping.diagnostics["held_out_cosine"] > 0.7
    assert len(losses) == (2 if kind == "lm" else 1)
    for curve in losses:
        assert np.mean(curve[-5:]) < np.mean(curve[:5])
    mapped = apply_mapping(mapping, jnp.asarray(reference.image[:9]))
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1.0, atol=1e-5)


@pytest.fixture(scope="module")
def regression(reference, mesh):
    return fit_mapping(
        reference, BRIEF, weights_fingerprint="abc", key=jax.random.key(3), mesh=mesh
    )


def test_the_same_key_gives_the_same_mapping(reference, mesh, regression):
    again = fit_mapping(
        reference, BRIEF, weights_fingerprint="abc", key=jax.random.key(3), mesh=mesh
    )
    same = jax.tree.map(lambda p, q: bool(np.array_equal(p, q)), again.params, regression.params)
    assert all(jax.tree.leaves(same))


class Stopped(Exception):
    pass


def test_a_fit_that_was_stopped_goes_on_and_ends_the_same(reference, mesh, tmp_path, monkeypatch):
    config = dataclasses.replace(BRIEF, epochs=2.0)
    asked = []

    def stopping(total, what, *, unit, done):
        asked.append((what, done))
        return types.SimpleNamespace(update=step, close=lambda: None)

    def step():
        left[0] -= 1
        if left[0] == 0:
            raise Stopped

    def fitted(folder):
        return fit_mapping(
            reference,
            config,
            weights_fingerprint="abc",
            key=jax.random.key(3),
            mesh=mesh,
            folder=folder,
        )

    whole = fitted(None)
    monkeypatch.setattr(phases, "meter", stopping)
    monkeypatch.setattr(phases, "CHECKPOINT_EVERY", 2)
    left = [6]
    with pytest.raises(Stopped):
        fitted(tmp_path)
    for _ in range(2):  # goes on; and once more, where nothing is left to do
        again = fitted(tmp_path)
        assert again.diagnostics == whole.diagnostics
        for ours, theirs in zip(
            jax.tree.leaves(again.params), jax.tree.leaves(whole.params), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    assert asked == [("fitting F (mapping)", 0), ("fitting F (mapping)", 4)]


@pytest.mark.parametrize("kind", ["ridge", "regression"])
def test_round_trip(tmp_path, reference, ridge, regression, kind):
    mapping = {"ridge": ridge, "regression": regression}[kind]
    save_mapping(tmp_path / "m", mapping)
    again = load_mapping(tmp_path / "m", weights_fingerprint="abc")
    blank = {"params": None, "calibration": None}
    assert again._replace(**blank) == mapping._replace(**blank)
    for ours, theirs in zip(again.calibration, mapping.calibration, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    image = jnp.asarray(reference.image[:4])
    np.testing.assert_array_equal(apply_mapping(again, image), apply_mapping(mapping, image))


def test_refuses_other_weights_and_other_widths(tmp_path, ridge):
    save_mapping(tmp_path / "m", ridge)
    with pytest.raises(WeightsError, match=r"other weights \(abc, these are xyz\)"):
        load_mapping(tmp_path / "m", weights_fingerprint="xyz")
    with pytest.raises(WeightsError, match="width 12, got 5"):
        apply_mapping(ridge, jnp.zeros((2, 5)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda facts: facts.update(format=9), "format 2"),
        (lambda facts: facts.update(dim=13), "does not fit"),
        (lambda facts: facts.update(kind="oracle"), "unknown kind"),
        (lambda facts: facts.pop("width"), "not a mapping's"),
    ],
)
def test_damaged_folders(tmp_path, ridge, damage, message):
    save_mapping(tmp_path, ridge)
    facts = json.loads((tmp_path / "mapping.json").read_text())
    damage(facts)
    (tmp_path / "mapping.json").write_text(json.dumps(facts))
    with pytest.raises(WeightsError, match=message):
        load_mapping(tmp_path)


def test_missing_and_cut_files(tmp_path, ridge):
    with pytest.raises(WeightsError, match="not a mapping folder"):
        load_mapping(tmp_path)
    save_mapping(tmp_path, ridge)
    tensors = tmp_path / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:50])
    with pytest.raises(WeightsError, match="not a mapping folder"):
        load_mapping(tmp_path)


def test_too_small_references_and_missing_tokens(reference, mesh):
    few = Reference(reference.image[:4], reference.text[:8], reference.image_of[:8])
    plain = reference._replace(tokens=None, lengths=None)
    for given, kind, message in (
        (few, "ridge", "at least 10"),
        (plain, "lm", "wants the captions"),
    ):
        with pytest.raises(InputError, match=message):
            fit_mapping(
                given,
                MappingConfig(kind=kind),
                weights_fingerprint="abc",
                key=jax.random.key(0),
                mesh=mesh,
            )


def test_compact_vocabulary():
    tokens = np.array([[98, 40, 7, 99, 0, 0], [98, 7, 7, 50, 40, 99]], np.int32)
    ids, lengths, size = compact(tokens, np.array([4, 6]), max_length=4)
    assert size == 4  # 7, 40, 50 and the end token 99
    np.testing.assert_array_equal(ids, [[1, 0, 3, 0], [0, 0, 2, 1]])
    np.testing.assert_array_equal(lengths, [3, 4])
