"""A whole run on a few scenes with the smallest model that still learns."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from mmjax.core.errors import ConfigError, InputError, MmjaxError, RetryError, RunError
from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.evaluate.retrieval import evaluate_pairs
from mmjax.learn.config import OptimizerConfig
from mmjax.models.clip import build
from mmjax.models.weights import load_weights
from mmjax.train.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig
from mmjax.train.pipeline import train

CONFIG = TrainConfig(
    data=DataConfig(scenes=64, heldout_scenes=40, scene_captions=2),
    model=ModelConfig(preset="tiny", vocab_size=640, compute="float32"),
    augment=AugmentConfig(crop_area=0.8),
    optimizer=OptimizerConfig(learning_rate=3e-3),
    steps=24,
    batch_size=16,
    checkpoint_every=5,
    log_every=1,
    evaluate_every=8,
)


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    with jax.debug_key_reuse(True):
        return folder, train(CONFIG, folder, mesh=make_mesh(), evaluate=evaluate_pairs)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return np.array([line["loss"] for line in lines])


def test_the_loss_goes_down_and_is_written(finished):
    folder, result = finished
    curve = losses(folder)
    assert len(curve) == CONFIG.steps
    assert curve[-4:].mean() < curve[:4].mean() - 0.2
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["images"] == 64
    assert summary["captions"] == 128
    assert summary["heldout"]["auroc_matched"] == result.summary["heldout"]["auroc_matched"]
    assert summary["last"]["loss"] == curve[-1]
    first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    np.testing.assert_allclose(first["learning_rate"], 3e-3, rtol=1e-6)
    assert summary["last"]["learning_rate"] < 1e-4
    assert (folder / "training.png").stat().st_size > 10_000


def test_held_out_pairs_judge_on_the_way(finished):
    folder, result = finished
    lines = [json.loads(line) for line in (folder / "heldout.jsonl").read_text().splitlines()]
    assert [line.pop("step") for line in lines] == [8, 16, 24]
    assert lines[-1] == result.summary["heldout"]
    assert lines[0] != lines[-1]


def test_the_export_is_the_trained_model(finished):
    _, result = finished
    weights = load_weights(f"mmjax-dir:{result.folder}")
    assert weights.preset.text.vocab_size == 640
    assert weights.tokenizer_path is not None
    towers = build(weights.preset)
    images = np.zeros((2, 32, 32, 3), np.uint8)
    norms = np.linalg.norm(jax.jit(towers.encode_image)(weights.variables, images), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)


@pytest.mark.slow
def test_a_run_stopped_twice_exports_the_same_bytes(finished, tmp_path):
    for length in (6, 7):
        asked = iter(range(length))
        with pytest.raises(RetryError):
            train(
                CONFIG,
                tmp_path / "out",
                mesh=make_mesh(),
                evaluate=evaluate_pairs,
                stop=lambda asked=asked: next(asked, None) is None,
            )
    train(CONFIG, tmp_path / "out", mesh=make_mesh(), evaluate=evaluate_pairs)
    folder, _ = finished
    for name in ("model/model.safetensors", "metrics.jsonl", "heldout.jsonl", "summary.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.slow
def test_one_device_and_four_have_the_same_loss_curve(finished, tmp_path):
    train(CONFIG, tmp_path / "out", mesh=make_mesh(MeshConfig(data=1)))
    np.testing.assert_allclose(losses(tmp_path / "out"), losses(finished[0]), rtol=1e-5)


@pytest.mark.slow
def test_fine_tuning_has_one_loss_curve_however_memory_is_saved(finished, tmp_path):
    """Split over a mesh of 2 x 2, in two parts, rematerialised, with a loss in chunks of 3."""
    _, pretrained = finished
    plain = dataclasses.replace(
        CONFIG,
        model=ModelConfig(weights=f"mmjax-dir:{pretrained.folder}", compute="float32"),
        augment=AugmentConfig(),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        steps=6,
        average=0.5,
        mesh=MeshConfig(data=1),
    )
    saving = dataclasses.replace(
        plain,
        model=dataclasses.replace(plain.model, remat=True),
        mesh=MeshConfig(data=2, model=2),
        fsdp=True,
        accumulate=2,
        loss_chunk=3,
    )
    for name, config in (("plain", plain), ("saving", saving)):
        train(config, tmp_path / name, mesh=make_mesh(config.mesh))
    curve = losses(tmp_path / "plain")
    assert curve[0] < losses(finished[0])[0] - 0.2, "it does not start from the weights"
    np.testing.assert_allclose(losses(tmp_path / "saving"), curve, rtol=1e-5)
    one, other = (
        load_weights(f"mmjax-dir:{tmp_path / name / 'model'}").variables["params"]
        for name in ("plain", "saving")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 20, "accumulate": 2}, "batch_size 20 does not divide by mesh.data 4 x"),
        ({"model": ModelConfig(weights="demo", context_length=99)}, "a context of 99"),
    ],
)
def test_what_does_not_fit_is_refused(tiny, changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train(dataclasses.replace(CONFIG, **changes), tmp_path / "out", mesh=make_mesh())


def test_a_mistake_leaves_the_folder_to_the_command_that_is_right(tiny, tmp_path):
    wrong = dataclasses.replace(CONFIG, data=DataConfig(location=str(tmp_path / "absent")))
    with pytest.raises(InputError, match="no such file"):
        train(wrong, tmp_path / "out", mesh=make_mesh())
    short = dataclasses.replace(CONFIG, steps=1)
    train(short, tmp_path / "out", mesh=make_mesh())
    with pytest.raises(RunError, match="add --overwrite"):
        train(CONFIG, tmp_path / "out", mesh=make_mesh())
    kept = f"mmjax-dir:{tmp_path / 'out' / 'model'}"
    for mistake, says in (
        ({"data": wrong.data}, "no such file"),
        ({"model": ModelConfig(weights="mmjax-dir:absent")}, "no such folder"),
        ({"model": ModelConfig(weights=kept)}, "which --overwrite empties"),
    ):
        with pytest.raises(MmjaxError, match=says):
            train(
                dataclasses.replace(CONFIG, **mistake),
                tmp_path / "out",
                mesh=make_mesh(),
                overwrite=True,
            )
        load_weights(kept)  # a mistake empties nothing
    train(dataclasses.replace(CONFIG, steps=2), tmp_path / "out", mesh=make_mesh(), overwrite=True)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["steps"] == 2


def test_another_configuration_is_refused(finished):
    with pytest.raises(RunError, match="steps"):
        train(dataclasses.replace(CONFIG, steps=30), finished[0], mesh=make_mesh())
