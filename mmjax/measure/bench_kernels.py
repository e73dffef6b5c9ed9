"""Kernels of the scan and of training: loss, mixture, correlation, neighbours."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.mixture import GaussianMixture

from mmjax.core import keys
from mmjax.measure.bench import Part, jitted
from mmjax.measure.bench_config import BenchConfig
from mmjax.measure.bench_inputs import SCALE, unit_rows
from mmjax.ops.contrastive import chunked_info_nce, info_nce
from mmjax.ops.correlation import text_correlation
from mmjax.ops.gmm import Mixture, expectation_maximisation
from mmjax.ops.neighbours import count_above, nearest

HIGHEST = jax.lax.Precision.HIGHEST


def loss_case(config: BenchConfig) -> tuple[np.ndarray, np.ndarray]:
    """The embeddings of both sides of the case `loss`."""
    n, d = {"tiny": (64, 16), "small": (4096, 512), "full": (12_288, 1024)}[config.size]
    image = unit_rows(n, d)
    return image, image[::-1].copy()


def loss(config: BenchConfig, work: Path) -> Iterator[Part]:
    """InfoNCE with its gradient: chunked, and with the whole matrix of logits."""
    image, text = (jnp.asarray(each) for each in loss_case(config))
    n, d = image.shape
    given = image, text, jnp.float32(SCALE)
    flops = 3 * 2.0 * n * n * d  # the logits, and their products with either side
    for name, function, peer in (
        ("loss and gradient, chunked", chunked_info_nce, False),
        ("loss and gradient, whole matrix", info_nce, True),
    ):
        compiled = jax.jit(jax.value_and_grad(function, argnums=(0, 1))).lower(*given).compile()
        memory = compiled.memory_analysis()
        held = float(memory.temp_size_in_bytes) if memory else 0.0

        def run(compiled: jax.stages.Compiled = compiled) -> tuple:
            return jax.block_until_ready(compiled(*given))

        yield Part(name, run, n, "pair", flops=flops, temporaries=held, peer=peer)


def gmm(config: BenchConfig, work: Path) -> Iterator[Part]:
    """K = 5, 30 iterations from the same start: exact, from a histogram, and scikit-learn's."""
    n = {"tiny": 2_000, "small": 200_000, "full": 3_300_000}[config.size]
    rng = keys.host(0, "bench", "gmm")
    values = np.concatenate([rng.normal(m, 0.05, n // 5) for m in (0.1, 0.2, 0.3, 0.5, 0.8)])
    k, iterations = 5, 30
    means = np.quantile(values, (np.arange(k) + 0.5) / k)
    start = Mixture(means, np.full(k, values.var()), np.full(k, 1 / k), -np.inf, False)
    ones = np.ones_like(values, np.float32)  # whose type is that of the sums inside blocks
    counts, edges = np.histogram(values, bins=4096)
    middles = (edges[1:] + edges[:-1]) / 2

    def ours(points: np.ndarray, weights: np.ndarray) -> Mixture:
        return expectation_maximisation(
            points, weights, start, tolerance=0.0, max_iterations=iterations, floor=1e-6
        )

    def theirs() -> GaussianMixture:
        model = GaussianMixture(
            k, tol=0.0, max_iter=iterations, means_init=means[:, None],
            weights_init=start.weights, precisions_init=1 / start.variances[:, None, None],
        )  # fmt: skip
        # it warns that 30 iterations did not converge, which is what they are for
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model.fit(values[:, None])

    count = len(values)
    yield Part("mixture, exact", lambda: ours(values, ones), count, "score")
    weights = counts.astype(np.float64)
    yield Part("mixture, 4,096 bins", lambda: ours(middles, weights), count, "score")
    yield Part("scikit-learn", theirs, count, "score", peer=True)


def correlation(config: BenchConfig, work: Path) -> Iterator[Part]:
    """The correlation z of all captions, from half precision, beside a read of the same array."""
    n, d = {"tiny": (2_000, 32), "small": (200_000, 512), "full": (800_000, 1024)}[config.size]
    text = unit_rows(n, d).astype(np.float16)
    mean = text[:400].astype(np.float32).mean(axis=0)[None]
    run = jitted(text_correlation, text, mean)
    yield Part("z of float16 captions", run, n, "caption", traffic=float(text.nbytes))
    yield Part("a sum of the same array", jitted(_sum, text), n, "caption", peer=True)


def _sum(rows: jax.Array) -> jax.Array:
    return jnp.sum(rows.astype(jnp.float32))


def neighbours_case(config: BenchConfig) -> tuple[int, np.ndarray]:
    """How many of the rows ask, and the rows that are asked about."""
    sizes = {"tiny": (64, 256, 16), "small": (4096, 16_384, 512), "full": (8192, 65_536, 1024)}
    queries, n, d = sizes[config.size]
    return queries, unit_rows(n, d)


def neighbours(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Exact search and counting, beside the bare product of the same size."""
    q, rows = neighbours_case(config)
    among = jnp.asarray(rows)
    queries, own = among[:q], jnp.arange(q)
    thresholds = jnp.asarray((0.2, 0.5, 0.8), jnp.float32)
    flops = 2.0 * q * among.size

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a, b.T, precision=HIGHEST)

    def search() -> None:
        jax.block_until_ready(nearest(queries, among, own, k=16))

    def count() -> None:
        jax.block_until_ready(count_above(queries, among, thresholds, own))

    yield Part("16 nearest", search, q, "query", flops=flops)
    yield Part("counts above 3 thresholds", count, q, "query", flops=flops)
    yield Part(
        "the bare product", jitted(product, queries, among), q, "query", flops=flops, peer=True
    )
