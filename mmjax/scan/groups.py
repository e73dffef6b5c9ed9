"""Which captions are near which, and the groups that flagged pairs form."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Float16, Float32, Int64, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mmjax.core.progress import progress
from mmjax.ops.correlation import centre
from mmjax.ops.neighbours import nearest, place
from mmjax.scan.blocks import EmbeddingBlock, chunk_size, chunks, total_rows
from mmjax.scan.neighbourhood import SCALES, Crowds, Graph, crowds, mutual

LINKED = 100
"""Captions of a group are among each other's that many nearest."""
MOST_QUERIES = 500_000
"""The likeliest wrong captions whose neighbours are looked for, at most."""
USUAL_QUERIES = 8_192
"""Captions beside them that stand for the set at large."""
SPARE = 20
"""Neighbours looked for beyond those wanted, as captions of the same image do not count."""
SURE = 4.0
"""Standard errors by which captions of one image are more alike than random ones."""
_QUERIES, _SAMPLE, _CENTRED = 4096, 1024, 65_536


class Group(NamedTuple):
    """Pairs that hang together, on so many distinct images in so many wordings.

    Those of a group that is not `linked` hang together with no other by caption or image.
    """

    rows: Int64[np.ndarray, " m"]
    images: int
    captions: int
    linked: bool


def caption_graph(
    blocks: Sequence[EmbeddingBlock],
    scored: Int64[np.ndarray, " n"],
    mean: Float32[np.ndarray, " d"],
    ranking: Float32[np.ndarray, " n"],
    *,
    mesh: Mesh | None = None,
) -> Graph:
    """Nearest captions of all distinct captions, or of those that rank highest and of some others.

    Cost 2 q n d FLOP; the distinct captions are held in half precision, once on the host and once
    in all over the devices.

    Args:
        blocks: the embeddings.
        scored: rows that count.
        mean: what captions are centred by.
        ranking: of the scored rows: how likely they are wrong.
        mesh: devices that share the search; None = one.
    """
    marks = [fingerprints(np.asarray(b.text, np.float16)) for b in blocks]
    image = np.concatenate([fingerprints(b.image) for b in blocks])[scored]
    image_of = np.unique(image, return_inverse=True)[1]
    _, first, caption_of = np.unique(
        np.concatenate(marks)[scored], return_index=True, return_inverse=True
    )
    captions, owner = _centred(blocks, scored[first], mean), image_of[first]
    keys = place(captions, mesh=mesh)
    queries = usual = np.arange(first.size)
    if first.size > MOST_QUERIES:
        best = np.full(first.size, -np.inf)
        np.maximum.at(best, caption_of, ranking)
        # captions are numbered by their fingerprints, so the first ones are a random sample
        usual = queries[:USUAL_QUERIES]
        ranked = np.argpartition(-best, MOST_QUERIES)[:MOST_QUERIES]
        queries = np.union1d(ranked, usual)
    wanted = min(SCALES[-1], max(first.size - 1, 1))
    near = np.full((queries.size, wanted), -1, np.int32)
    cosine = np.full((queries.size, wanted), -np.inf, np.float32)
    for low in progress(
        range(0, queries.size, _QUERIES),
        total=-(-queries.size // _QUERIES),
        what="neighbours of captions",
    ):
        part = queries[low : low + _QUERIES]
        # one size of block, hence one compiled program
        own = np.resize(part, _QUERIES) if queries.size > _QUERIES else part
        found = nearest(captions[own], keys, own, k=wanted + SPARE, mesh=mesh)
        at, products = (np.asarray(v)[: part.size] for v in found)
        other = (at >= 0) & (owner[at] != owner[part][:, None])
        # stable: those of other images first, nearest first
        order = np.argsort(~other, axis=1, kind="stable")[:, :wanted]
        kept = np.take_along_axis(other, order, 1)
        here = slice(low, low + part.size)
        near[here] = np.where(kept, np.take_along_axis(at, order, 1), -1)
        cosine[here] = np.where(kept, np.take_along_axis(products, order, 1), -np.inf)
    return Graph(
        caption_of.astype(np.int64),
        image_of.astype(np.int64),
        queries.astype(np.int64),
        near,
        cosine,
        np.isin(queries, usual),
        _alike(crowds(image_of, caption_of), captions),
    )


def find_groups(graph: Graph, flagged: Bool[np.ndarray, " n"]) -> list[Group]:
    """The flagged of the scored rows in groups, largest first; `rows` count among the scored.

    Rows hang together by their captions (equal, or mutual neighbours) or by their image. Those
    that hang together with no other are one last group: what they share is the looks of images.
    """
    rows = np.flatnonzero(flagged)
    captions, caption = np.unique(graph.caption_of[rows], return_inverse=True)
    image = np.unique(graph.image_of[rows], return_inverse=True)[1]
    place = np.full(graph.captions, -1)
    place[captions] = np.arange(captions.size)
    known = np.isin(graph.queries, captions)
    k = min(LINKED, graph.near.shape[1])
    near = graph.near[known, :k]
    one, k_th = np.nonzero(mutual(graph, k)[known] & (place[near] >= 0))
    # nodes: the captions, behind them the images
    ends = np.concatenate([place[graph.queries[known]][one], caption])
    others = np.concatenate([place[near[one, k_th]], captions.size + image])
    shape = (captions.size + rows.size,) * 2
    edges = coo_array((np.ones(ends.size), (ends, others)), shape=shape)
    label = connected_components(edges, directed=False)[1][caption] if rows.size else rows
    number, size = np.unique(label, return_counts=True)
    groups = [_group(graph, rows[label == i]) for i in number[size > 1]]
    groups.sort(key=lambda group: (-group.rows.size, int(group.rows[0])))
    alone = rows[np.isin(label, number[size == 1])]
    return [*groups, _group(graph, alone, linked=False)] if alone.size else groups


def fingerprints(embeddings: Float[np.ndarray, "n d"]) -> UInt64[np.ndarray, " n"]:
    """A number a row, equal for rows of equal bits (and, but for 2^-64, for no others)."""
    n, d = embeddings.shape
    bits = np.ascontiguousarray(embeddings).view(np.uint8).reshape(n, d * embeddings.itemsize)
    factors = np.random.default_rng(0).integers(0, 2**64, bits.shape[1], np.uint64) | np.uint64(1)
    found = np.zeros(n, np.uint64)
    for byte in range(bits.shape[1]):  # a column at a time: eight bytes a row, not eight d
        found += bits[:, byte] * factors[byte]
    return found


def _alike(crowd: Crowds, captions: Float[np.ndarray, "c d"]) -> Bool[np.ndarray, " m"]:
    """Of every crowded image, whether its captions' mean cosine is beyond that of random ones."""
    sample = np.linspace(0, len(captions) - 1, min(len(captions), _SAMPLE)).astype(int)
    random = captions[sample].astype(np.float32)
    cosine = (random @ random.T)[np.triu_indices(sample.size, 1)]
    alike = np.zeros(crowd.beyond.shape, bool)
    edges = np.searchsorted(crowd.image, np.arange(crowd.beyond.size + 1))  # in order of images
    for image in np.flatnonzero(crowd.beyond):
        own = captions[crowd.caption[edges[image] : edges[image + 1]]].astype(np.float32)
        pairs = own.shape[0] * (own.shape[0] - 1) / 2
        chance = cosine.mean() + SURE * cosine.std() / np.sqrt(pairs)
        # as ops.correlation.mean_pairwise_cosine, which would be compiled for every size
        total = own.sum(axis=0)
        alike[image] = (total @ total - np.sum(own * own)) / (2 * pairs) > chance
    return alike


def _group(graph: Graph, rows: Int64[np.ndarray, " m"], *, linked: bool = True) -> Group:
    images, captions = (np.unique(v[rows]).size for v in (graph.image_of, graph.caption_of))
    return Group(rows, images, captions, linked)


def _centred(
    blocks: Sequence[EmbeddingBlock],
    rows: Int64[np.ndarray, " c"],
    mean: Float32[np.ndarray, " d"],
) -> Float16[np.ndarray, "c d"]:
    """Centred captions of some rows in half precision; the set is read once, in order."""
    found = np.empty((rows.size, mean.size), np.float16)
    place_of = np.full(total_rows(blocks), -1)
    place_of[rows] = np.arange(rows.size)
    offset = jnp.asarray(mean)
    for chunk in chunks(blocks, chunk_size(blocks, _CENTRED), images=False):
        at = place_of[chunk.start : chunk.stop]
        text = centre(jnp.asarray(chunk.text.astype(np.float16)), offset)
        found[at[at >= 0]] = np.asarray(text.astype(jnp.float16))[: at.size][at >= 0]
    return found
