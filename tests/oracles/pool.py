"""A pool of embeddings as a list, oldest first."""

import numpy as np


def put(pool: list[np.ndarray], batch: np.ndarray) -> list[np.ndarray]:
    return [*pool[1:], batch]


def nearest(queries: np.ndarray, pool: list[np.ndarray]) -> np.ndarray:
    entries = [entry for batch in pool for row in batch for entry in row]
    found = []
    for query in queries:
        products = [float(np.dot(query, entry)) for entry in entries]
        found.append(entries[products.index(max(products))])
    return np.stack(found)
