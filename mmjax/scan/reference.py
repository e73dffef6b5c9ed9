"""A clean captioned set as the mapping network reads it: images, their captions, token ids."""

import numpy as np

from mmjax.core.errors import InputError
from mmjax.data.tokenizer import Tokenizer
from mmjax.scan.fitting import Reference
from mmjax.scan.inputs import ScannedSet

MINIMUM = 20


def make_reference(scanned: ScannedSet, tokenizer: Tokenizer | None) -> Reference:
    """The scored rows of a set, the captions of one image grouped under it.

    Args:
        scanned: the embedded set.
        tokenizer: gives the captions' token ids; None leaves them out (kind `lm` wants them).

    Raises:
        InputError: fewer than `MINIMUM` images can be used.
    """
    images, texts, captions = [], [], []
    for shard in scanned.shards:
        rows = np.flatnonzero(shard.block.valid)
        images.append(np.asarray(shard.block.image[rows]))
        texts.append(np.asarray(shard.block.text[rows]))
        if tokenizer is not None:
            column = shard.pairs().column("caption").to_pylist()
            captions += [column[row] for row in rows]
    image, text = np.concatenate(images), np.concatenate(texts)
    # the same image is encoded once, so its rows are bit-equal
    as_bytes = np.ascontiguousarray(image).view(f"V{image.shape[1] * image.itemsize}")[:, 0]
    _, first, image_of = np.unique(as_bytes, return_index=True, return_inverse=True)
    if len(first) < MINIMUM:
        raise InputError(
            f"the reference holds {len(first)} usable image(s); fitting a mapping network wants at "
            f"least {MINIMUM}, and some thousands to be good"
        )
    if tokenizer is None:
        return Reference(image[first], text, image_of)
    tokens = tokenizer.encode(captions)
    return Reference(image[first], text, image_of, tokens.ids, tokens.lengths)
