"""Trigger search by loops in float64, every loss computed from scratch."""

import itertools

import numpy as np

from tests.oracles.contrastive import info_nce


class Linear:
    """Caption i reads unit(c_i + sum over slots s of M_s e_s), e_s the trigger's embeddings.

    `owner[i]` is the row of the trigger that caption i bears.
    """

    def __init__(self, seed, n, k, *, vocab=6, width=4, d=3, universal=False):
        rng = np.random.default_rng(seed)
        self.table = rng.normal(size=(vocab, width))
        self.captions = rng.normal(size=(n, d))
        self.maps = rng.normal(size=(k, d, width))
        image = rng.normal(size=(n, d))
        self.image = image / np.linalg.norm(image, axis=1, keepdims=True)
        self.scale = 5.0
        self.owner = np.zeros(n, int) if universal else np.arange(n)
        self.trigger = rng.integers(vocab, size=(self.owner.max() + 1, k))

    def texts(self, embedded):
        """The captions under triggers with these embeddings [n, k, w]."""
        rows = []
        for caption, owner in zip(self.captions, self.owner, strict=True):
            row = caption.copy()
            for slot, matrix in enumerate(self.maps):
                row += matrix @ embedded[owner, slot]
            rows.append(row / np.linalg.norm(row))
        return np.array(rows)

    def loss(self, trigger):
        return info_nce(self.image, self.texts(self.table[trigger]), self.scale)

    def gradient(self, eps=1e-6):
        """Of the loss in the triggers' embeddings, by central differences."""
        embedded = self.table[self.trigger]
        found = np.zeros_like(embedded)
        for at in np.ndindex(embedded.shape):
            ends = []
            for sign in (1, -1):
                moved = embedded.copy()
                moved[at] += sign * eps
                ends.append(info_nce(self.image, self.texts(moved), self.scale))
            found[at] = (ends[0] - ends[1]) / (2 * eps)
        return found

    def changes(self):
        """The change of the loss by every single substitution, [n, k, v]."""
        before = self.loss(self.trigger)
        found = np.zeros((*self.trigger.shape, len(self.table)))
        for row, slot, token in np.ndindex(found.shape):
            found[row, slot, token] = self.loss(exchanged(self.trigger, row, slot, token)) - before
        return found


def exchanged(trigger, row, slot, token):
    changed = trigger.copy()
    changed[row, slot] = token
    return changed


def search(model, candidates, *, beam=1, per_sample=False):
    """Beam search, the rule of the reference (OFF:utils.py, Wallace et al. 2019) for beam = 1.

    Args:
        model: a `Linear`.
        candidates: [n, k, c], the best first.
        beam: how many sets of triggers are kept after every slot; equal ones count once.
        per_sample: adds the set in which each trigger takes what is best for it alone.
    """
    n, k, count = candidates.shape
    kept = [(model.loss(model.trigger), model.trigger)]
    for slot in range(k):
        tried = []
        for _, trigger in kept:
            sets = [trigger]
            for rank in range(count):
                changed = trigger.copy()
                for row in range(n):
                    changed[row, slot] = candidates[row, slot, rank]
                sets.append(changed)
            if per_sample:
                combined = trigger.copy()
                for row in range(n):
                    tokens = [trigger[row, slot], *candidates[row, slot]]
                    alone = [model.loss(exchanged(trigger, row, slot, t)) for t in tokens]
                    combined[row, slot] = tokens[int(np.argmin(alone))]
                sets.append(combined)
            tried += [(model.loss(each), each) for each in sets]
        kept, seen = [], set()
        for loss, each in sorted(tried, key=lambda pair: pair[0]):
            if each.tobytes() not in seen and len(kept) < beam:
                kept.append((loss, each))
                seen.add(each.tobytes())
    return kept[0]


def brute_force(model):
    """The best of all triggers over the whole vocabulary."""
    ids = itertools.product(range(len(model.table)), repeat=model.trigger.size)
    sets = (np.array(each).reshape(model.trigger.shape) for each in ids)
    return min(((model.loss(each), each) for each in sets), key=lambda pair: pair[0])
