"""A stored model with the tokenizer that it reads captions by."""

from typing import NamedTuple

from mmjax.core.errors import TokenizerError
from mmjax.data.tokenizer import Tokenizer, load_tokenizer
from mmjax.models.weights import Weights, load_weights


class Pretrained(NamedTuple):
    """Weights and a tokenizer that fit each other."""

    weights: Weights
    tokenizer: Tokenizer


def load_pretrained(weights: str, tokenizer: str = "") -> Pretrained:
    """Load a model and its tokenizer.

    Args:
        weights: KIND:FOLDER or demo, as `models.weights.load_weights` takes it.
        tokenizer: a folder or file; empty = the one beside the weights.

    Raises:
        WeightsError: the weights cannot be loaded.
        TokenizerError: there is no tokenizer, or it does not fit the model.
    """
    loaded = load_weights(weights)
    path = tokenizer or loaded.tokenizer_path
    if not path:
        raise TokenizerError(
            f"no tokenizer beside the weights {weights}; name CLIP's tokenizer.json, its folder "
            "with vocab.json and merges.txt, or bpe_simple_vocab_16e6.txt.gz with --tokenizer"
        )
    text = loaded.preset.text
    made = load_tokenizer(path, context_length=text.context_length, expected_vocab=text.vocab_size)
    return Pretrained(loaded, made)
