"""Words of the report: what scores, verdicts and figures mean, and what the method cannot see."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmjax.scan.report_captions import CaptionCluster, SharedWord, shorten
from mmjax.scan.report_images import SharedArea
from mmjax.scan.verdicts import Drop


class Wording(NamedTuple):
    """A short label and its one-line explanation."""

    label: str
    meaning: str


VERDICTS: Mapping[str, Wording] = {
    "poisoned": Wording(
        "Look poisoned",
        "the caption does not fit, and so do others that share its direction, image or trigger",
    ),
    "benign": Wording("Look fine", "no sign of poisoning"),
    "mismatched": Wording(
        "Merely wrong",
        "the caption does not fit, but shares nothing with others; kept unless asked",
    ),
    "undetermined": Wording("Undecided", "scored, but the scan could not decide"),
    "skipped": Wording("Skipped", "could not be scored; the reasons are listed below"),
}
"""Verdicts in the order of the page."""

SCORES: Mapping[str, Wording] = {
    "poison_score": Wording(
        "poison score", "0 = harmless, 1 = worst; from 0.5 on a pair is flagged"
    ),
    "sim_original": Wording("caption fit", "how well the caption fits the picture (s_o)"),
    "sim_generated": Wording("expected fit", "how well a fitting caption would (s_g)"),
    "consistency": Wording("gap c", "the difference of the two: |s_g − s_o|"),
    "text_correlation": Wording(
        "likeness z", "how close the caption is to those of a flagged group (or of the seeds)"
    ),
}
"""Score columns in the order of the cards."""

METRICS: Mapping[str, Wording] = {
    "true_positive_rate": Wording("Found", "share of the poisoned pairs that were flagged"),
    "false_positive_rate": Wording(
        "False alarms", "share of the clean pairs that were flagged by mistake"
    ),
    "precision": Wording("Right flags", "share of the flags that are right"),
    "auroc": Wording(
        "AUROC", "chance that a poisoned pair gets a higher score than a clean one; 1 = always"
    ),
    "auprc": Wording(
        "AUPRC", "precision averaged over all thresholds; the share of poison = guessing, 1 = best"
    ),
    "coarse_auroc": Wording("AUROC of c", "the same for the gap c alone (first stage)"),
    "seed_purity": Wording("Seed purity", "share of the seeds that really are poisoned"),
}
"""Metrics against the truth."""

SUMMARY: Mapping[str, Wording] = {
    "found.seeds": Wording("seeds", "pairs with the largest gaps"),
    "found.null_test.observed": Wording(
        "likeness among the seeds", "mean likeness of the seeds’ captions to one another"
    ),
    "found.null_test.quantile99": Wording(
        "… by chance", "99 of 100 random sets of as many captions stay below this"
    ),
    "found.null_test.exceeds": Wording("… exceeded", "whether it is"),
    "found.wrong_share": Wording(
        "wrong pairs, estimated",
        "share of pairs that look as little alike as an image and a random caption",
    ),
    "found.background": Wording(
        "wrong pairs at large", "their share in the set, apart from where they keep together"
    ),
    "found.loose_group": Wording(
        "loose group", "number of the group whose pairs share neither caption nor image with others"
    ),
    "thresholds.coverage": Wording("cut on c", "pairs below it count as consistent"),
    "thresholds.fdr": Wording(
        "false alarms allowed", "expected share of honest pairs among those flagged, at most"
    ),
    "thresholds.expected_fdr": Wording("… expected", "the share that this scan reckons with"),
    "thresholds.poison": Wording("least probability", "of poison, of a flagged pair"),
    "thresholds.gamma_z": Wording("cut on z", "pairs above it are flagged (paper mode)"),
    "mapping.kind": Wording("second network", "how it was taught what fits"),
    "mapping.reference.images": Wording("… clean pictures", "that it was taught on"),
    "mapping.reference.captions": Wording("… their captions", ""),
    "mapping.diagnostics.held_out_cosine": Wording(
        "… closeness", "mean cosine of what it says fits to the real captions of clean pictures"
    ),
    "mapping.diagnostics.held_out_correlation": Wording(
        "… reliability", "how well expected fit follows caption fit on clean pairs; 1 = perfectly"
    ),
}
"""Figures of the stages in summary.json, nested names joined by a dot."""

LIMITS: tuple[str, ...] = (
    "“No evidence” is not a guarantee. The scan looks for one kind of trace: captions that do not "
    "fit their pictures and that resemble one another.",
    "Clean-label poison, where picture and caption do fit each other and only a hidden trigger was "
    "added, leaves no such trace.",
    "Natural captions about a common topic (“a dog runs on the beach” on the wrong picture) hide "
    "among honest captions of the topic: many are missed, though seldom honest ones flagged.",
    "Groups of fewer than about ten pairs may not form a pattern at all.",
    "Small sets (below about 1,000 pairs) leave too few pairs to learn what is usual from.",
    "Pairs that are merely wrong (bad alt texts, shifted rows) look like poison where they keep to "
    "one topic. One caption on many pictures counts as boilerplate and is not flagged: an attacker "
    "who always writes the same words is not told from it. Look before you delete.",
    "Scores depend on the model. Pictures unlike those it was trained on (drawings, X-rays, other "
    "languages in captions) make the gap c less telling. An attacker who knows the model can "
    "write captions that pass.",
    "The share of false alarms is an expectation: it holds as far as the clean reference resembles "
    "the honest part of this set.",
)
"""What the method cannot see, for readers who are about to act on the page."""


def verdict_sentence(
    counts: Mapping[str, int],
    words: Sequence[SharedWord],
    clusters: Sequence[CaptionCluster],
    area: SharedArea | None,
) -> str:
    """Returns the one sentence of the page: how many of how many, and what they share.

    Args:
        counts: Rows by verdict.
        words: Words that the flagged captions share, the most telling first.
        clusters: Wordings of the flagged captions, the commonest first.
        area: Where the flagged pictures are the same.
    """
    poisoned, total = counts.get("poisoned", 0), sum(counts.values())
    scored = total - counts.get("skipped", 0)
    if scored == 0:
        return f"None of the {_pairs(total)} could be scored."
    if poisoned == 0:
        if counts.get("undetermined", 0):
            return f"Undecided: {_pairs(scored)} are too few or too alike to judge."
        return f"No evidence of poisoning in {_pairs(scored)}."
    if poisoned == 1:
        return f"1 of {_pairs(total)} looks poisoned."
    shared: list[str] = []
    if words:
        many = "all" if words[0].pairs == poisoned else f"{words[0].pairs:,}"
        shared.append(f"{many} of them say “{shorten(words[0].word, 40)}”")
    elif clusters and clusters[0].share >= 0.5:
        wording = shorten(clusters[0].exemplar, 60)
        shared.append(f"{clusters[0].pairs:,} of them are worded like “{wording}”")
    if area is not None and area.share < 0.5:
        shared.append(f"their pictures share a mark at {area.place}")
    elif area is not None:
        shared.append("their pictures are nearly the same")
    sentence = f"{poisoned:,} of {_pairs(total)} look poisoned"
    return f"{sentence}: {', and '.join(shared)}." if shared else f"{sentence}."


def actions(counts: Mapping[str, int], *, drop: Drop, clean_written: bool) -> list[str]:
    """Returns what was done about the verdict, one sentence each.

    Args:
        counts: Rows by verdict.
        drop: Which pairs the manifests drop beside the poisoned ones.
        clean_written: Whether the run holds a cleaned copy.
    """
    names = {"poisoned": "flagged", "mismatched": "merely wrong"}
    dropped = [names[v] for v in names if counts.get(v, 0) and v in ("poisoned", drop)]
    if not dropped:
        what = "Nothing was dropped; the input is unchanged"
        copied = " The folder “clean” holds a copy of every scored pair." if clean_written else ""
        return [f"{what}.{copied}"]
    unchanged = (
        "The input is unchanged. keep.parquet and drop.parquet list every pair to keep or drop"
    )
    without = f"a copy without the {' and '.join(dropped)} pairs"
    if clean_written:
        return [f"{unchanged}; the folder “clean” holds {without}."]
    return [f"{unchanged}; scan with --write_clean to get {without}."]


def cautions(counts: Mapping[str, int]) -> list[str]:
    """Returns what must be known before these counts are trusted."""
    total, skipped = sum(counts.values()), counts.get("skipped", 0)
    poisoned, scored = counts.get("poisoned", 0), total - counts.get("skipped", 0)
    found: list[str] = []
    if skipped > 0.01 * total:
        found.append(f"{skipped:,} of {_pairs(total)} were skipped and have no verdict.")
    if 0 < scored < 1_000:
        found.append(f"{_pairs(scored)} are few to learn from what is usual; take this as a hint.")
    if poisoned > 0.1 * scored:
        found.append(
            "More than a tenth of the pairs is flagged. Either the set is heavily poisoned, or "
            "honest pairs share an unusual caption: look at the pictures before deleting."
        )
    return found


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count:,} pairs"
