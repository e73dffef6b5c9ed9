"""What a run starts from: a model's shape, its weights if it is fine-tuned, its tokenizer."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from mmjax.core import distributed
from mmjax.core.errors import ConfigError
from mmjax.data.pairs import PairTable
from mmjax.data.tokenizer import Tokenizer, load_tokenizer, train_bpe
from mmjax.learn.config import ModelConfig
from mmjax.models.clip import Variables
from mmjax.models.presets import Preset, preset
from mmjax.models.weights import load_weights


class Start(NamedTuple):
    """Where training starts.

    Fields:
        shape: the model's shape.
        variables: its weights, None where they are to be drawn.
        tokenizer_path: its tokenizer, None where it is to be trained.
        fingerprint: sha256 of the weights, empty without.
    """

    shape: Preset
    variables: Variables | None
    tokenizer_path: Path | None
    fingerprint: str


def read_start(config: ModelConfig) -> Start:
    """The named preset, or the shape and weights of `config.weights`.

    Raises:
        ConfigError: no such preset; weights without a tokenizer.
        WeightsError: the weights cannot be read.
    """
    named = Path(config.tokenizer) if config.tokenizer else None
    if not config.weights:
        return Start(preset(config.preset), None, named, "")
    weights = load_weights(config.weights)
    path = named or weights.tokenizer_path
    if path is None:
        raise ConfigError(f"{config.weights} has no tokenizer beside it; give model.tokenizer")
    return Start(weights.preset, weights.variables, path, weights.fingerprint)


def fit_text(
    start: Start, config: ModelConfig, table: PairTable, out_dir: Path
) -> tuple[Preset, Tokenizer, Path]:
    """The shape with the tokenizer's vocabulary and the wanted context, the tokenizer, its path.

    A BPE of the training captions is written to `out_dir/tokenizer.json` if there is none.

    Raises:
        ConfigError: the tokenizer or the context does not fit the given weights.
    """
    path = start.tokenizer_path
    if path is None:
        path = out_dir / "tokenizer.json"
        if distributed.is_primary():
            train_bpe([text for each in table.captions for text in each], config.vocab_size, path)
        distributed.wait_for_others("tokenizer")
    text = start.shape.text
    context = config.context_length or text.context_length
    tokenizer = load_tokenizer(path, context_length=context)
    wanted = dataclasses.replace(text, vocab_size=tokenizer.vocab_size, context_length=context)
    if start.variables is None:
        return dataclasses.replace(start.shape, text=wanted), tokenizer, path
    if tokenizer.vocab_size != text.vocab_size or context > text.context_length:
        raise ConfigError(
            f"{config.weights} reads {text.vocab_size} kinds of tokens, {text.context_length} at "
            f"most; got a tokenizer of {tokenizer.vocab_size} and a context of {context}"
        )
    return start.shape, tokenizer, path
