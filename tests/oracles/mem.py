"""MEM in torch, float64, pair by pair: train the surrogate, search triggers, step along the signs.

Written from the algorithm's description: MEM, section 3.3, equations 4 to 6, and what its authors'
code fixes beyond the paper (a trigger and a noise for each pair, a gradient a batch, candidates of
one rank tried for the whole batch). Who calls says which pairs form a batch and how captions are
exchanged; pairs that only fill a batch up are in its loss and keep what they have.
"""

from typing import NamedTuple

import numpy as np
import torch


class Searched(NamedTuple):
    """What a search went through.

    Fields:
        slope: of the batch's loss in the triggers' embeddings [b, k, w].
        candidates: the tokens that were tried [b, k, c], the best by estimate first.
        losses: of each place, first with the trigger so far, then with each rank [k, c + 1].
        triggers: what was found [b, k].
    """

    slope: np.ndarray
    candidates: np.ndarray
    losses: np.ndarray
    triggers: np.ndarray


class Mem:
    """A surrogate with its optimizer, and the noises and triggers of m pairs."""

    def __init__(self, model, mean, std, images, captions, noise, triggers, *, optimizer, rules):
        """Begin.

        Args:
            model: CLIP; `model(pixels, tokens)` gives unit-norm embeddings and the scale.
            mean: of pixels in [0, 1], by channel.
            std: likewise.
            images: bytes [m, h, w, 3], of every pair.
            captions: [m, l]: start token, k places, the caption, end token.
            noise: grey levels [m, h, w, 3].
            triggers: [m, k].
            optimizer: learning_rate, b1, b2, eps, weight_decay.
            rules: epsilon, step_size, candidates, forbidden (tokens).
        """
        self.model = model.double()
        self.mean, self.std = (torch.tensor(each, dtype=torch.float64) for each in (mean, std))
        self.images, self.captions = images.astype(int), captions
        self.noise, self.triggers = noise.astype(int), triggers.copy()
        self.rules = rules
        named = list(self.model.named_parameters())
        decayed = [p for _, p in named if p.ndim >= 2]
        others = [p for _, p in named if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": optimizer.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=optimizer.learning_rate,
            betas=(optimizer.b1, optimizer.b2),
            eps=optimizer.eps,
        )

    def loss(self, pixels, tokens):
        """The batch's loss: how surely each image finds its caption, and each caption its image."""
        normal = ((pixels / 255 - self.mean) / self.std).permute(0, 3, 1, 2)
        image, text, scale = self.model(normal, torch.from_numpy(tokens).long())
        own = torch.arange(len(image))
        to_text = torch.nn.functional.cross_entropy(scale * image @ text.T, own)
        to_image = torch.nn.functional.cross_entropy(scale * text @ image.T, own)
        return (to_text + to_image) / 2

    def tokens(self, triggers, bodies):
        """The captions `bodies`, each under one of the triggers."""
        lines = []
        for trigger, body in zip(triggers, bodies, strict=True):
            line = self.captions[body].copy()
            for place, token in enumerate(trigger):
                line[1 + place] = token
            lines.append(line)
        return np.array(lines)

    def pixels(self, rows, noise):
        return torch.from_numpy((self.images[rows] + noise).astype(np.float64))

    def train(self, rows):
        """A step of AdamW on pairs as they are protected so far; returns its gradients by name."""
        self.model.train()
        self.optimizer.zero_grad()
        tokens = self.tokens(self.triggers[rows], rows)
        self.loss(self.pixels(rows, self.noise[rows]), tokens).backward()
        found = {name: p.grad.numpy().copy() for name, p in self.model.named_parameters()}
        self.optimizer.step()
        return found

    def search(self, rows, changing):
        """New triggers for the first `changing` of the pairs, place by place (equation 6)."""
        self.model.eval()
        pixels, found = self.pixels(rows, self.noise[rows]), self.triggers[rows].copy()
        places = found.shape[1]
        kept = []
        table = self.model.token_embedding
        hook = table.register_forward_hook(lambda module, tokens, made: kept.append(made))
        loss = self.loss(pixels, self.tokens(found, rows))
        hook.remove()
        (slope,) = torch.autograd.grad(loss, kept)
        slope = slope[:, 1 : 1 + places].numpy()
        words = table.weight.detach().numpy()
        candidates, losses = [], []
        for place in range(places):
            ranked = []
            for row in range(len(rows)):
                gain = {
                    token: -float(word @ slope[row, place])
                    for token, word in enumerate(words)
                    if token not in self.rules.forbidden
                }
                best = sorted(gain, key=lambda token: -gain[token])
                ranked.append(best[: self.rules.candidates])
            ranked = np.array(ranked)
            options = [found]
            for rank in range(self.rules.candidates):
                option = found.copy()
                option[:, place] = ranked[:, rank]
                options.append(option)
            with torch.no_grad():
                tried = [float(self.loss(pixels, self.tokens(each, rows))) for each in options]
            found = options[int(np.argmin(tried))]
            candidates.append(ranked)
            losses.append(tried)
        self.triggers[rows[:changing]] = found[:changing]
        return Searched(slope, np.stack(candidates, axis=1), np.array(losses), found)

    def slope(self, rows, noise, order):
        """The gradient in the noise, every image under its own trigger and another's caption."""
        self.model.eval()
        pixels = self.pixels(rows, noise).requires_grad_()
        tokens = self.tokens(self.triggers[rows], rows[order])
        (found,) = torch.autograd.grad(self.loss(pixels, tokens), pixels)
        return found.numpy()

    def moved(self, rows, noise, slope):
        """One signed step down, back into the budget and into the range of pixels (equation 5)."""
        noise = noise - self.rules.step_size * np.sign(slope).astype(int)
        noise = np.clip(noise, -self.rules.epsilon, self.rules.epsilon)
        return np.clip(self.images[rows] + noise, 0, 255) - self.images[rows]

    def descend(self, rows, changing, orders):
        """New noises for the first `changing` of the pairs, a step for each order of captions."""
        noise = self.noise[rows]
        for order in orders:
            noise = self.moved(rows, noise, self.slope(rows, noise, order))
        self.noise[rows[:changing]] = noise[:changing]
