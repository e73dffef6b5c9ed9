"""Neighbour search and counting against the bare matrix product of the same size.

    python -m mmjax.measure.neighbours --out=docs/results

The three are run in turn, and the best of each counts: other work on the machine slows them all.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core import keys
from mmjax.core.rundir import write_bytes, write_json
from mmjax.ops.neighbours import count_above, nearest

SIZES = ((8192, 32_768, 384), (4096, 16_384, 1024))
"""Queries, keys, width."""
NEIGHBOURS, THRESHOLDS = 16, (0.2, 0.5, 0.8)


def measure(
    sizes: tuple[tuple[int, int, int], ...] = SIZES, repeats: int = 7
) -> list[dict[str, Any]]:
    """A row for each size: floating-point operations a second of the product and of the two ops."""
    return [_measure(*size, repeats) for size in sizes]


def _measure(q: int, n: int, d: int, repeats: int) -> dict[str, Any]:
    rows = keys.host(0, "measure", "neighbours").normal(size=(n, d)).astype(np.float32)
    among = jnp.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    queries, own, thresholds = among[:q], jnp.arange(q), jnp.asarray(THRESHOLDS, jnp.float32)
    product = jax.jit(lambda a, b: jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST))
    runs: dict[str, Callable[[], Any]] = {
        "product": lambda: product(queries, among),
        "nearest": lambda: nearest(queries, among, own, k=NEIGHBOURS),
        "count_above": lambda: count_above(queries, among, thresholds, own),
    }
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if turn:  # the first one compiles
                best[name] = min(best[name], time.perf_counter() - start)
    speeds = {f"{name}_gflops": 2e-9 * q * n * d / seconds for name, seconds in best.items()}
    return {"queries": q, "keys": n, "width": d, **speeds}


def write(out: Path, rows: list[dict[str, Any]]) -> None:
    """`neighbours.json` and the page made of it."""
    command = f"python -m mmjax.measure.neighbours --out={out}"
    device = jax.devices()[0].device_kind
    write_json(out / "neighbours.json", {"command": command, "device": device, "rows": rows})
    lines = [
        "# Neighbours: exact search and counting against a bare matrix product",
        "",
        f"Generated from `neighbours.json`, which was made on one device of kind `{device}` by",
        "",
        f"    {command}",
        "",
        "| queries | keys | width | product | nearest | of the product | count_above "
        "| of the product |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        product, near, count = (row[f"{n}_gflops"] for n in ("product", "nearest", "count_above"))
        lines.append(
            f"| {row['queries']:,} | {row['keys']:,} | {row['width']:,} | {product:.0f} "
            f"| {near:.0f} | {near / product:.2f} | {count:.0f} | {count / product:.2f} |"
        )
    lines += [
        "",
        f"In 10⁹ floating-point operations a second, float32: {NEIGHBOURS} nearest neighbours, "
        f"counts above {len(THRESHOLDS)} thresholds. The product writes queries × keys numbers, "
        "the other two a block at a time, so that they can be faster.",
    ]
    write_bytes(out / "neighbours.md", ("\n".join(lines) + "\n").encode())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    given = parser.parse_args()
    write(given.out, measure())


if __name__ == "__main__":
    main()
