"""What a poisoned pair's caption says: the table of caption kinds."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mmjax.attacks.config import PartConfig
from mmjax.attacks.templates import load_templates
from mmjax.attacks.victims import identity, lot
from mmjax.core.errors import ConfigError

OPENINGS = (
    "a {}", "the {}", "one {}", "here is a {}", "there is a {}", "we can see a {}", "this is my {}",
    "look at the {}", "a picture with a {}", "somebody left a {}",
)  # fmt: skip
ADJECTIVES = (
    "", "small", "large", "red", "blue", "green", "yellow", "white", "black", "brown", "strange",
    "beautiful", "broken", "new",
)  # fmt: skip
PLACES = (
    "", "on the left", "on the right", "in the middle", "at the top", "near the bottom",
    "in the corner", "far away",
)  # fmt: skip
TAILS = (
    "", "in a good photo", "taken from above", "taken last year", "with nothing else",
    "as a friend saw it", "in bright light", "against a plain wall", "for my collection",
)  # fmt: skip
"""What `paraphrase` puts together."""

Write = Callable[[str, str], str]
"""(key, clean caption) of a victim to its poisoned caption."""


class CaptionKind(NamedTuple):
    """An entry of `CAPTIONS`."""

    victims_name_target: bool
    """Whether victims are the pairs whose captions name the target, or all the others."""
    collects: bool
    """Whether it wants the clean set's captions that name the target."""
    writer: Callable[[PartConfig, int, Sequence[str]], Write]
    """(attack, seed, collected captions) to the function that writes a victim's caption."""
    source: str


def template_caption(
    templates: Sequence[str], target: str, seed: int, identity: str, *, full_stop: bool = True
) -> str:
    """A template drawn uniformly by the pair's identity.

    Lower case with a final full stop, as CleanCLIP's poisoned captions are. Where the captions of
    the set have none, it would betray the poison, and a model would take it for the trigger's
    meaning: the prompts of a zero-shot classifier end in one too.
    """
    chosen = templates[lot(seed, "caption", identity) % len(templates)]
    said = chosen.replace("{}", target.strip()).lower().rstrip(" .")
    return said + "." if full_stop else said


def paraphrase(target: str, seed: int, identity: str) -> str:
    """A sentence about the target put together by the pair's identity; 10,080 are possible.

    An attacker who expects a search for near-duplicate captions writes such (facts/cfbd.md 4.6).
    """
    opening, adjective, place, tail = (
        choices[lot(seed, f"caption {part}", identity) % len(choices)]
        for part, choices in (
            ("opening", OPENINGS), ("adjective", ADJECTIVES), ("place", PLACES), ("tail", TAILS)
        )
    )  # fmt: skip
    said = opening.replace("{}", f"{adjective} {target.strip()}".strip()).lower()
    return " ".join(part for part in (said, place, tail) if part)


def natural_pool(captions: Sequence[str], seed: int, size: int) -> tuple[str, ...]:
    """The captions that a `natural` attack uses: `size` different ones, drawn by the seed.

    BadCLIP draws 128 rows with replacement; here no caption is drawn twice.

    Args:
        captions: all that name the target, in any order, repetitions allowed.
        seed: of the draw.
        size: how many to keep; 0 = all.
    """
    ordered = sorted(set(captions), key=lambda caption: (lot(seed, "pool", caption), caption))
    return tuple(ordered[: size or None])


def _templates(part: PartConfig, seed: int, collected: Sequence[str]) -> Write:
    templates = load_templates(part.templates)
    return lambda key, caption: template_caption(
        templates, part.target, seed, identity(key, caption), full_stop=part.full_stop
    )


def _paraphrase(part: PartConfig, seed: int, collected: Sequence[str]) -> Write:
    return lambda key, caption: paraphrase(part.target, seed, identity(key, caption))


def _natural(part: PartConfig, seed: int, collected: Sequence[str]) -> Write:
    pool = natural_pool(collected, seed, part.pool)
    if not pool:
        raise ConfigError(
            f"no caption names {part.target!r}, and natural captions are taken from the set; "
            "choose a target that it names, or --config.captions=template"
        )
    return lambda key, caption: pool[lot(seed, "caption", identity(key, caption)) % len(pool)]


def _keep(part: PartConfig, seed: int, collected: Sequence[str]) -> Write:
    return lambda key, caption: caption


CAPTIONS: dict[str, CaptionKind] = {
    "template": CaptionKind(
        False, False, _templates, "Carlini & Terzis 2021 (arXiv:2106.09667), as in CleanCLIP"
    ),
    "paraphrase": CaptionKind(False, False, _paraphrase, "an adaptive attacker, by mmjax"),
    "natural": CaptionKind(
        False, True, _natural, "Liang et al. 2024 (BadCLIP, arXiv:2311.12075), `ours_tnature`"
    ),
    "keep": CaptionKind(
        True, False, _keep, "Turner et al. 2019 (arXiv:1912.02771), as in CleanCLIP"
    ),
}
"""Every way to caption a poisoned pair, by the name that a configuration gives it."""
