"""What MEM's experiments protect and train, at either scale.

At `small` scale models are made for two cores. At `paper` scale they are the paper's, on the whole
of its sets, with its budgets (facts of the reference's code where the text is silent); the files
`configs/reproduce/mem_*.py` name the sets. A model is named by its preset, which is trained from
scratch, or by weights, which are fine-tuned.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from mmjax.core.errors import ConfigError
from mmjax.evaluate.experiment import ReproduceConfig
from mmjax.models.presets import PRESETS

_ALL = 1_000_000_000


class Settings(NamedTuple):
    """`MemConfig`, its gaps filled by the scale; `optimizer` holds what both trainings share."""

    train: str
    test: str
    photos: int
    test_photos: int
    captions: int
    people: int
    person_photos: int
    person_test_photos: int
    surrogate: str
    victims: tuple[str, ...]
    tokenizer: str
    vocab_size: int
    context_length: int
    noise_scope: Literal["image", "pair"]
    rounds: int
    surrogate_steps: int
    surrogate_learning_rate: float
    steps: int
    batch_size: int
    learning_rate: float
    optimizer: Mapping[str, Any]


SCALES: dict[str, Settings] = {
    "small": Settings(
        train="train",
        test="test",
        photos=1_000,
        test_photos=500,
        captions=1,
        people=380,
        person_photos=15,
        person_test_photos=5,
        surrogate="vit-tiny-64",
        victims=("vit-tiny-64", "demo", "vit-small-64"),
        tokenizer="",
        vocab_size=2_048,
        context_length=24,
        noise_scope="image",
        rounds=4,
        surrogate_steps=50,
        surrogate_learning_rate=2e-3,
        steps=400,
        batch_size=64,
        learning_rate=2e-3,
        optimizer={"weight_decay": 0.2},
    ),
    "paper": Settings(
        train="train",
        test="test",
        photos=_ALL,
        test_photos=_ALL,
        captions=5,
        people=380,
        person_photos=_ALL,
        person_test_photos=1,
        surrogate="RN50",
        victims=("RN50", "RN101", "ViT-B-32"),
        tokenizer="",
        vocab_size=49_408,
        context_length=77,
        noise_scope="pair",
        rounds=20,
        surrogate_steps=200,
        surrogate_learning_rate=1e-4,
        steps=7_500,
        batch_size=128,
        learning_rate=5e-4,
        optimizer={"weight_decay": 0.2, "b2": 0.999, "eps": 1e-8},
    ),
}
"""By scale; 7,500 steps are 32 epochs of Flickr8k's 30,000 pairs."""


def settings(config: ReproduceConfig) -> Settings:
    """What the configuration says, and where it says nothing, its scale.

    Raises:
        ConfigError: the surrogate's weights are not named by KIND:FOLDER.
    """
    if config.weights and ":" not in config.weights:
        raise ConfigError(
            f"MEM's surrogates start from weights that are named KIND:FOLDER, got "
            f"{config.weights!r}; without --weights they start from scratch"
        )
    given = {name: getattr(config.mem, name, None) for name in Settings._fields}
    given |= {
        "surrogate": config.weights or config.mem.model,
        "tokenizer": config.tokenizer or None,
    }
    if config.weights:
        given["victims"] = config.mem.victims or (config.weights,)
    told = {name: value for name, value in given.items() if value not in (None, ())}
    return SCALES[config.scale]._replace(**told)


def model_values(spec: str, mem: Settings, tokenizer: str) -> dict[str, Any]:
    """A model as `ModelConfig` takes it.

    Args:
        spec: a preset, or weights (KIND:FOLDER), which have a tokenizer of their own.
        mem: the settings.
        tokenizer: of presets.
    """
    start = (
        {"preset": spec, "tokenizer": tokenizer}
        if spec in PRESETS
        else {"weights": spec, "tokenizer": mem.tokenizer}
    )
    return {**start, "context_length": mem.context_length, "compute": "float32"}


def image_size(spec: str) -> int:
    """The pixels of a side that a model sees.

    Raises:
        WeightsError: it is no preset, and there are no such weights.
    """
    from mmjax.models.weights import load_weights

    shape = PRESETS[spec] if spec in PRESETS else load_weights(spec).preset
    return shape.vision.image_size
