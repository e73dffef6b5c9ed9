"""Captions as the report shows them: made inert, grouped by wording, compared word by word."""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

CAPTION_LIMIT = 300
"""Characters of a caption that the report shows."""

_MARKS_IN_A_ROW = 4
_WORD = re.compile(r"\w+")
_JOINERS = "\u200c\u200d"  # legitimate inside Persian and Indic words and in emoji
_NORMALISED_PREFIX = 2_000  # characters read for grouping; a caption of 1 MB costs no more
_MAX_DISTINCT = 4_000


class CaptionCluster(NamedTuple):
    """Captions of one wording or nearly so.

    `exemplar` is the commonest spelling, `pairs` the captions, `share` their part of all captions
    given, `distinct` the number of different wordings among them.
    """

    exemplar: str
    pairs: int
    share: float
    distinct: int


class WordCounts(NamedTuple):
    """In how many of `captions` captions each word occurs."""

    captions: int
    words: Counter[str]


class SharedWord(NamedTuple):
    """A word that flagged captions have far more often than the others (shares in [0, 1])."""

    word: str
    pairs: int
    flagged_share: float
    other_share: float


def visible(text: str, *, keep_newlines: bool = False) -> str:
    """Returns `text` with every character that could act rather than be seen written out.

    Control characters, bidirectional overrides, zero-width and other format characters, line
    separators, lone surrogates and unassigned code points become ⟨U+202E⟩. Joiners stay between
    two non-ASCII characters (emoji, Persian, Indic), and of a pile of combining marks the first
    four stay. The result can always be encoded as UTF-8. It still has to be escaped for HTML.
    """
    shown: list[str] = []
    marks = 0
    for position, character in enumerate(text):
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks > _MARKS_IN_A_ROW:
            continue
        inert = category[0] != "C" and category not in ("Zl", "Zp")
        if inert or (keep_newlines and character == "\n") or _joins(text, position):
            shown.append(character)
        else:
            shown.append(f"⟨U+{ord(character):04X}⟩")
    return "".join(shown)


def _joins(text: str, position: int) -> bool:
    """True where a zero-width joiner stands between two visible non-ASCII characters."""
    if text[position] not in _JOINERS or not 0 < position < len(text) - 1:
        return False
    neighbours = (text[position - 1], text[position + 1])
    return all(ord(c) > 127 and unicodedata.category(c)[0] in "LMS" for c in neighbours)


def shorten(text: str, limit: int = CAPTION_LIMIT) -> str:
    """Returns the first `limit` characters of `text`, made visible, and how long it really is."""
    if len(text) <= limit:
        return visible(text)
    return f"{visible(text[:limit])} … ({len(text):,} characters)"


def normalise(caption: str) -> str:
    """Returns the words of a caption: compatibility forms folded, lower case, no punctuation."""
    folded = unicodedata.normalize("NFKC", caption[:_NORMALISED_PREFIX]).casefold()
    return " ".join(_WORD.findall(folded))


def count_words(captions: Iterable[str]) -> WordCounts:
    """Counts in how many captions each word occurs; a `Counter` gives each caption its number."""
    times = captions if isinstance(captions, Counter) else Counter(captions)
    words: Counter[str] = Counter()
    for caption, count in times.items():
        for word in set(normalise(caption).split()):
            words[word] += count
    return WordCounts(times.total(), words)


def shared_words(flagged: WordCounts, others: WordCounts, limit: int = 6) -> list[SharedWord]:
    """Returns the words that the flagged captions share and the others rarely have.

    A word qualifies when it stands in at least a fifth of the flagged captions (and in three of
    them) and three times as often as in the others; they are ranked by
    share_flagged · log(share_flagged / share_other), the word's part in the Kullback-Leibler
    divergence of flagged from other captions, with half a count added to both; of equals the
    longer word comes first. Words with less than a quarter of the first one's part are left out.
    """
    found: list[tuple[float, SharedWord]] = []
    for word, count in flagged.words.items():
        share = count / flagged.captions
        if count < 3 or share < 0.2:
            continue
        other_count = others.words[word]
        lift = _lift(count, flagged.captions, other_count, others.captions)
        if lift >= 3:
            other_share = other_count / max(others.captions, 1)
            found.append((share * math.log(lift), SharedWord(word, count, share, other_share)))
    found.sort(key=lambda scored: (-scored[0], -len(scored[1].word), scored[1].word))
    return [word for part, word in found[:limit] if part >= 0.25 * found[0][0]]


def _lift(count: int, total: int, other_count: int, other_total: int) -> float:
    return ((count + 0.5) / (total + 1)) / ((other_count + 0.5) / (other_total + 1))


def collect_clusters(
    captions: Sequence[str] | Counter[str],
    others: WordCounts | None = None,
    *,
    similarity: float = 0.35,
    limit: int = 10,
) -> list[CaptionCluster]:
    """Groups captions by normalised wording, then near-duplicate wordings around the commonest.

    Two wordings are near duplicates when the weighted Jaccard similarity of their word sets is at
    least `similarity`. With `others` (the captions that were not flagged) a word weighs the log of
    how much more often it occurs here than there, so that "a photo of a banana" and "one big
    banana" meet in "banana" and not in "a". At most the 4,000 commonest wordings are compared.

    Args:
        captions: The captions of one kind of pair (flagged, for review), or how often each occurs.
        others: Word counts of the remaining captions.
        similarity: Weighted Jaccard similarity in (0, 1] that joins two wordings.
        limit: How many clusters to return, largest first.
    """
    spelled = Counter(captions)
    total = spelled.total()
    wordings: dict[str, Counter[str]] = defaultdict(Counter)
    for caption, count in spelled.items():
        wordings[normalise(caption)][caption] += count
    ranked = sorted(wordings.items(), key=lambda item: (-item[1].total(), item[0]))[:_MAX_DISTINCT]
    weight = _word_weights(count_words(spelled), others)

    members: list[list[Counter[str]]] = []
    word_sets: list[set[str]] = []
    leaders_of: dict[str, list[int]] = defaultdict(list)
    for text, spellings in ranked:
        words = set(text.split())
        leader = _nearest(words, word_sets, leaders_of, weight, similarity)
        if leader is None:
            leader = len(members)
            members.append([])
            word_sets.append(words)
            for word in words:
                leaders_of[word].append(leader)
        members[leader].append(spellings)
    clusters = [
        CaptionCluster(
            exemplar=min(group[0].items(), key=lambda item: (-item[1], item[0]))[0],
            pairs=sum(spellings.total() for spellings in group),
            share=sum(spellings.total() for spellings in group) / total,
            distinct=len(group),
        )
        for group in members
    ]
    clusters.sort(key=lambda cluster: -cluster.pairs)
    return clusters[:limit]


def _word_weights(here: WordCounts, others: WordCounts | None) -> Mapping[str, float]:
    if others is None or others.captions == 0:
        return dict.fromkeys(here.words, 1.0)
    return {
        word: max(
            math.log(_lift(count, here.captions, others.words[word], others.captions)),
            0.1,  # words that say nothing still separate wordings that have nothing else
        )
        for word, count in here.words.items()
    }


def _nearest(
    words: set[str],
    word_sets: Sequence[set[str]],
    leaders_of: Mapping[str, Sequence[int]],
    weight: Mapping[str, float],
    similarity: float,
) -> int | None:
    """Returns the most similar leader (the first of equals), None when none is near enough."""
    candidates = {leader for word in words for leader in leaders_of.get(word, ())}
    best, nearest = similarity, None
    for leader in sorted(candidates):
        other = word_sets[leader]
        common = math.fsum(weight[word] for word in words & other)
        union = math.fsum(weight[word] for word in words | other)
        if common / union > best or (nearest is None and common / union >= best):
            best, nearest = common / union, leader
    return nearest
