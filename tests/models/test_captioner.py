import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.captioner import Captioner, caption_loss

TOKENS = jnp.array([[3, 1, 4, 1, 5], [2, 6, 5, 0, 0]])
LENGTHS = jnp.array([5, 3])


@pytest.fixture(scope="module")
def tiny():
    captioner = Captioner(vocabulary=7, width=8, layers=2, heads=2, max_length=6)
    embedding = jax.random.normal(jax.random.key(0), (2, 4))
    return captioner, captioner.init(jax.random.key(1), embedding, TOKENS), embedding


def test_a_token_is_predicted_from_those_before_it(tiny):
    captioner, variables, embedding = tiny
    logits = captioner.apply(variables, embedding, TOKENS)
    assert logits.shape == (2, 5, 7)
    changed = captioner.apply(variables, embedding, TOKENS.at[:, 2].set(0))
    np.testing.assert_allclose(changed[:, :3], logits[:, :3], atol=1e-6)
    assert np.max(np.abs(changed[:, 3] - logits[:, 3])) > 1e-6


def test_reads_the_embedding(tiny):
    captioner, variables, embedding = tiny
    logits = captioner.apply(variables, embedding, TOKENS)
    other = captioner.apply(variables, embedding + 1.0, TOKENS)
    assert np.max(np.abs(other[:, 0] - logits[:, 0])) > 1e-6


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_the_loop(tiny, smoothing):
    captioner, variables, embedding = tiny
    logits = np.asarray(captioner.apply(variables, embedding, TOKENS), np.float64)
    total, count = 0.0, 0
    for row, ids, length in zip(logits, np.asarray(TOKENS), np.asarray(LENGTHS), strict=True):
        for position in range(length):
            log_p = row[position] - np.log(np.sum(np.exp(row[position])))
            target = np.full(7, smoothing / 7)
            target[ids[position]] += 1 - smoothing
            total, count = total - np.sum(target * log_p), count + 1
    got = caption_loss(jnp.asarray(logits, jnp.float32), TOKENS, LENGTHS, smoothing)
    assert float(got) == pytest.approx(total / count, abs=1e-5)
