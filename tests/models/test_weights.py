import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.core.errors import WeightsError
from mmjax.models.clip import build
from mmjax.models.layouts import read, write
from mmjax.models.presets import preset
from mmjax.models.weights import load_weights, save_weights
from tests.models.tiny import RESNET, VIT


@pytest.fixture(scope="session")
def variables(model):
    return model[1]


@pytest.fixture
def saved(tiny, variables, tmp_path):
    tokenizer = tmp_path / "source" / "tokenizer.json"
    tokenizer.parent.mkdir()
    tokenizer.write_text("{}")
    folder = tmp_path / "model"
    save_weights(folder, tiny, variables, tokenizer)
    return folder


def test_what_is_saved_is_loaded(tiny, variables, saved):
    weights = load_weights(f"mmjax-dir:{saved}")
    assert weights.preset == tiny
    assert weights.name == "model"
    assert weights.tokenizer_path == saved
    jax.tree.map(np.testing.assert_array_equal, weights.variables, variables)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 1e-2)])
def test_half_precision_files_load_as_float32(tiny, variables, tmp_path, dtype, tolerance):
    save_weights(tmp_path, tiny, variables, dtype=dtype)
    loaded = load_weights(f"mmjax-dir:{tmp_path}").variables
    for near, exact in zip(jax.tree.leaves(loaded), jax.tree.leaves(variables), strict=True):
        assert near.dtype == jnp.float32
        np.testing.assert_allclose(near, exact, rtol=tolerance, atol=1e-6)


def test_fingerprint_follows_the_weights(tiny, variables, saved):
    before = load_weights(f"mmjax-dir:{saved}").fingerprint
    assert before == load_weights(f"mmjax-dir:{saved}").fingerprint
    variables = jax.tree.map(lambda leaf: leaf + 1, variables)
    save_weights(saved, tiny, variables)
    assert load_weights(f"mmjax-dir:{saved}").fingerprint != before


def test_a_training_run_is_loaded_by_its_folder(saved):
    run = saved.parent
    assert load_weights(f"orbax:{run}").fingerprint == load_weights(f"orbax:{saved}").fingerprint
    with pytest.raises(WeightsError, match="not finished"):
        load_weights(f"orbax:{run / 'source'}")


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_missing_tensors_are_listed(saved):
    change(saved, lambda tensors: [tensors.pop(name) for name in sorted(tensors)[:7]])
    with pytest.raises(
        WeightsError, match=r"7 tensors are missing: (params|batch)[^,]+(, [^,]+){4}"
    ):
        load_weights(f"mmjax-dir:{saved}")


def test_unused_tensors_are_listed(saved):
    change(saved, lambda tensors: tensors.update(extra=np.zeros(3, np.float32)))
    with pytest.raises(WeightsError, match="1 tensors have no place in this model: extra$"):
        load_weights(f"mmjax-dir:{saved}")


def test_wrong_shapes_name_wanted_and_got(saved):
    name = "params/text/norm_after/scale"
    change(saved, lambda tensors: tensors.update({name: np.zeros(3, np.float32)}))
    with pytest.raises(WeightsError, match=rf"{name} \(wanted \[32\], got \[3\]\)"):
        load_weights(f"mmjax-dir:{saved}")


def test_values_that_are_not_finite_are_refused(tiny, variables, saved):
    name = "params/text/norm_after/scale"
    change(saved, lambda tensors: tensors.update({name: np.full(32, np.nan, np.float32)}))
    with pytest.raises(WeightsError, match=f"{name} has values that are not finite"):
        load_weights(f"mmjax-dir:{saved}")
    huge = jax.tree.map(lambda leaf: leaf + 1e6, variables)
    with pytest.raises(WeightsError, match="not finite as float16"):
        save_weights(saved, tiny, huge, dtype="float16")


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_files_are_one_clear_line(saved, keep):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="truncated or not a safetensors file") as caught:
        load_weights(f"mmjax-dir:{saved}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("start", [b"PK\x03\x04junk", b"\x80\x02junk"])
def test_pickles_in_disguise_are_refused_with_the_command_that_converts(saved, start):
    (saved / "model.safetensors").write_bytes(start)
    with pytest.raises(WeightsError, match="mmjax convert .*model.safetensors --out="):
        load_weights(f"mmjax-dir:{saved}")


@pytest.mark.parametrize("spec", ["x/RN50.pt", "hf-dir:x/pytorch_model.bin"])
def test_pickles_by_name_are_refused_with_the_command_that_converts(spec):
    with pytest.raises(WeightsError, match=r"mmjax convert x/[\w.]+ --out=FOLDER"):
        load_weights(spec)


def test_a_folder_with_only_a_pickle_says_how_to_convert_it(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(WeightsError, match="mmjax convert .*pytorch_model.bin"):
        load_weights(f"hf-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("RN50", "of no known kind; wanted demo, hf-dir:FOLDER"),
        ("zip-dir:x", "of no known kind"),
        ("hf-dir:/no/such/place", "no such folder"),
    ],
)
def test_bad_specs_are_one_clear_line(spec, message):
    with pytest.raises(WeightsError, match=message):
        load_weights(spec)


@pytest.mark.parametrize(
    ("kind", "file", "content", "message"),
    [
        ("hf-dir", "config.json", "{", "is not JSON"),
        ("hf-dir", "config.json", "[]", "must hold a JSON object"),
        ("hf-dir", "config.json", '{"model_type": "bert"}', "model_type 'bert'; wanted 'clip'"),
        (
            "hf-dir",
            "config.json",
            '{"model_type": "clip", "vision_config": {"hidden_act": "relu"}}',
            "hidden_act must be",
        ),
        (
            "hf-dir",
            "config.json",
            '{"model_type": "clip", "text_config": {"eos_token_id": 7}}',
            "eos_token_id is 7",
        ),
        ("open_clip-dir", "open_clip_config.json", "{}", "no 'vision_cfg'"),
        (
            "open_clip-dir",
            "open_clip_config.json",
            '{"embed_dim": 8, "vision_cfg": {"timm_model_name": "x"}, "text_cfg": {}}',
            "vision_cfg.timm_model_name = 'x' is not supported",
        ),
        (
            "open_clip-dir",
            "open_clip_config.json",
            '{"embed_dim": 8, "vision_cfg": {"image_size": 225, "patch_size": 16}, "text_cfg": {}}',
            "image_size 225 must be a multiple of 16",
        ),
        ("mmjax-dir", "mmjax_config.json", '{"format": 9}', "has format 9; wanted 1"),
        ("mmjax-dir", "mmjax_config.json", '{"format": 1, "preset": {}}', "not describe a model"),
    ],
)
def test_bad_configurations_are_one_clear_line(tmp_path, kind, file, content, message):
    (tmp_path / file).write_text(content)
    with pytest.raises(WeightsError, match=message):
        load_weights(f"{kind}:{tmp_path}")


def test_presets_are_inferred_from_openais_own_configurations(tmp_path):
    from mmjax.models.foreign import from_open_clip, from_transformers

    config = {
        "model_cfg": {
            "embed_dim": 1024,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 224, "layers": [3, 4, 6, 3], "width": 64},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8},
        }
    }
    assert from_open_clip(config, "RN50") == preset("RN50")
    clip = {"model_type": "clip", "projection_dim": 512, "text_config": {"eos_token_id": 2}}
    assert from_transformers(clip, {}, "ViT-B-32") == preset("ViT-B-32")


@pytest.mark.parametrize("layout", ["open_clip", "transformers", "mmjax"])
@pytest.mark.parametrize("shape", [VIT, RESNET], ids=lambda shape: shape.name)
def test_what_is_written_in_a_layout_is_read_again(shape, layout):
    if layout == "transformers" and shape is RESNET:
        pytest.skip("transformers has no ResNet")
    initial = build(shape).init(jax.random.key(0))
    numbers = itertools.count(0.0, 1 / 64)  # no two values are the same
    variables = jax.tree.map(
        lambda leaf: np.arange(leaf.size, dtype=np.float32).reshape(leaf.shape) + next(numbers),
        initial,
    )
    tensors = write(shape, layout, variables)
    found = read(shape, layout, {k: v.shape for k, v in tensors.items()}, tensors.__getitem__)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
