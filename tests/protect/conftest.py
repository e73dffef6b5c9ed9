"""A few scenes, a very small model, and one finished protection of them."""

import dataclasses

import pytest

from mmjax.core.config import MeshConfig
from mmjax.data.scenes import write_scenes
from mmjax.learn.config import ModelConfig, OptimizerConfig
from mmjax.models import presets
from mmjax.models.presets import Preset, TextPreset, VisionPreset
from mmjax.protect.config import (
    NoiseConfig,
    ProtectConfig,
    SurrogateConfig,
    TriggerConfig,
    ViewConfig,
)
from mmjax.protect.pipeline import protect_pairs

MODEL = Preset(
    name="tiny",
    embed_dim=16,
    vision=VisionPreset(32, 32, 1, patch_size=16, head_width=32),
    text=TextPreset(width=32, heads=1, layers=1, vocab_size=640, context_length=32),
)


@pytest.fixture(scope="session")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.PRESETS, "tiny", MODEL)
        yield MODEL


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Twenty-two scenes of two captions each, two pairs of them spoiled."""
    folder = tmp_path_factory.mktemp("scenes") / "shards"
    write_scenes(folder, 22, 3, size=32, captions=2, shard_size=30, faults=2)
    return folder


def protection(scenes):
    """Two rounds on a folder of shards, with every part of a protection in them."""
    return ProtectConfig(
        inputs=(str(scenes),),
        output="shards",
        rounds=2,
        batch_size=8,
        noise=NoiseConfig(scope="image", steps=3),
        trigger=TriggerConfig(length=2, rounds=1, candidates=3, dropout=0.5),
        views=ViewConfig(),
        surrogate=SurrogateConfig(
            model=ModelConfig(preset="tiny", vocab_size=640, compute="float32"),
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup=0.0, schedule="constant"),
            steps=3,
        ),
        shard_size=16,
        mesh=MeshConfig(data=1),
    )


@pytest.fixture(scope="session")
def config(scenes):
    return protection(scenes)


@pytest.fixture(scope="session")
def protected(tiny, config, tmp_path_factory):
    """The folder, the manifest and what was said."""
    folder = tmp_path_factory.mktemp("protected") / "out"
    said: list[str] = []
    return folder, protect_pairs(config, folder, say=said.append), said


def changed(config, **groups):
    """The configuration with keys of groups replaced: `changed(config, noise={"steps": 1})`."""
    made = {
        name: dataclasses.replace(getattr(config, name), **value)
        if isinstance(value, dict)
        else value
        for name, value in groups.items()
    }
    return dataclasses.replace(config, **made)
