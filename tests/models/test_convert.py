import json
import sys

import jax
import numpy as np
import pytest

from mmjax.core.errors import WeightsError
from mmjax.models.convert import convert, infer_open_clip
from mmjax.models.foreign import open_clip_config
from mmjax.models.layouts import origin, shapes
from mmjax.models.presets import PRESETS, preset
from mmjax.models.weights import load_weights
from tests.models.tiny import RESNET, VIT, fill_values, transformers_config

LARGE = ("RN101", "ViT-L-14")


def names_of(shape, layout="open_clip"):
    origins = [origin(path, leaf, layout) for path, leaf in shapes(shape).items()]
    return {name: source.shape for source in origins for name in source.names}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in sorted(PRESETS)],
)
def test_shape_is_inferred_from_the_tensors(name):
    from mmjax.models.foreign import from_open_clip

    shape = preset(name)
    if shape.text.width // shape.text.heads != 64 or shape.vision.head_width != 64:
        pytest.skip("heads are not 64 wide")
    assert from_open_clip(infer_open_clip(names_of(shape), shape.activation), name) == shape


def test_other_tensors_are_told_from_a_clip_model():
    with pytest.raises(WeightsError, match="not a CLIP model's .* first names: encoder.weight"):
        infer_open_clip({"encoder.weight": (3, 3)}, "gelu")


def test_without_torch_there_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(WeightsError, match=r"needs torch.*mmjax\[parity\]"):
        convert(tmp_path / "x.pt", tmp_path)


def save(path, values, **extra):
    import torch

    torch.save({name: torch.from_numpy(value) for name, value in values.items()} | extra, path)


def variables_of(values, folder, config, kind):
    """What the same tensors load as when nothing was pickled."""
    from safetensors.numpy import save_file

    folder.mkdir()
    file, weights = {
        "open_clip-dir": ("open_clip_config.json", "open_clip_model.safetensors"),
        "hf-dir": ("config.json", "model.safetensors"),
    }[kind]
    (folder / file).write_text(json.dumps(config))
    save_file(values, folder / weights)
    return load_weights(f"{kind}:{folder}").variables


@pytest.mark.parity
@pytest.mark.parametrize("shape", [VIT, RESNET], ids=lambda shape: shape.name)
def test_open_clip_checkpoint_converts(shape, tmp_path):
    import torch

    values = fill_values(names_of(shape), seed=1)
    config = {"model_cfg": open_clip_config(shape)}
    source = tmp_path / "in" / "epoch_1.pt"
    source.parent.mkdir()
    tensors = {f"module.{name}": torch.from_numpy(value) for name, value in values.items()}
    torch.save({"epoch": 1, "state_dict": tensors}, source)
    (source.parent / "open_clip_config.json").write_text(json.dumps(config))
    (source.parent / "tokenizer.json").write_text("{}")
    found = convert(source, tmp_path / "out")
    assert found == (f"open_clip-dir:{tmp_path / 'out'}", "")
    weights = load_weights(found.weights)
    assert weights.tokenizer_path == tmp_path / "out"
    wanted = variables_of(values, tmp_path / "plain", config, "open_clip-dir")
    jax.tree.map(np.testing.assert_array_equal, weights.variables, wanted)


@pytest.mark.parity
def test_activation_is_openais_assumed_or_given(tmp_path):
    import torch

    shape = preset("vit-small-64")
    values = fill_values(names_of(shape), seed=1)
    save(tmp_path / "openai.pt", values, vocab_size=torch.tensor(5))
    save(tmp_path / "other.pt", values)
    assert convert(tmp_path / "openai.pt", tmp_path / "a").assumed == ""
    found = convert(tmp_path / "other.pt", tmp_path / "b")
    assert "assumed: GELU" in str(found)
    assert convert(tmp_path / "other.pt", tmp_path / "c", "quick_gelu").assumed == ""
    activations = [
        load_weights(f"open_clip-dir:{tmp_path / folder}").preset.activation for folder in "abc"
    ]
    assert activations == ["quick_gelu", "gelu", "quick_gelu"]


@pytest.mark.parity
def test_transformers_checkpoint_converts(tmp_path):
    values = fill_values(names_of(VIT, "transformers"), seed=1)
    source = tmp_path / "in" / "pytorch_model.bin"
    source.parent.mkdir()
    save(source, values)
    with pytest.raises(WeightsError, match=r"needs the config\.json"):
        convert(source, tmp_path / "out")
    config = transformers_config(VIT)
    (source.parent / "config.json").write_text(json.dumps(config))
    weights = load_weights(convert(source, tmp_path / "out").weights)
    wanted = variables_of(values, tmp_path / "plain", config, "hf-dir")
    jax.tree.map(np.testing.assert_array_equal, weights.variables, wanted)


class _Code:
    def __reduce__(self):
        return print, ("this must never be printed",)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:.*TorchScript archive.*")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_what_is_not_plain_tensors_is_refused_in_one_line(tmp_path, capsys):
    import torch

    torch.save({"weight": _Code()}, tmp_path / "code.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    (tmp_path / "old.pt").write_bytes(b"\x80\x02jjunk")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "code.pt").read_bytes()[:200])
    torch.save([1, 2], tmp_path / "list.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    for name, message in (
        ("code.pt", "damaged, or holds more than tensors"),
        ("cut.pt", "damaged, or holds more than tensors"),
        ("old.pt", "damaged, or holds more than tensors"),
        ("junk.pt", "is no torch checkpoint"),
        ("list.pt", "holds a list; wanted a state dict"),
        ("script.pt", "TorchScript program"),
        ("absent.pt", "no such file"),
    ):
        with pytest.raises(WeightsError, match=message) as caught:
            convert(tmp_path / name, tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert "never" not in capsys.readouterr().out
