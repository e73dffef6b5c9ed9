"""The goals of the robust mode, checked against made-up rows."""

import json

from mmjax.evaluate.embedding_pages import write_cases
from mmjax.evaluate.goals import natural_gains, never_behind, quiet


def row(case, name, auroc, tpr=0.5, **more):
    told = {"case": case, "name": name, "detector": name.upper(), "seed": more.pop("seed", 0)}
    return {**told, "poisoned": 10, "auroc": auroc, "tpr_at_0_1_fpr": tpr, **more}


ROWS = [
    row("templates", "cfbd_robust", 0.99),
    row("templates", "cfbd_coarse", 0.95),
    row("templates", "dao", 1.0),
    row("natural: dog", "cfbd_robust", 0.95, 0.6, seed=0),
    row("natural: dog", "cfbd_robust", 0.97, 0.6, seed=1),
    row("natural: dog", "cfbd_coarse", 0.90, 0.4),
    row("natural: dog", "dao", 0.99),
    {"case": "templates", "name": "abl", "detector": "ABL", "seed": 0, "reason": "no losses"},
]


def test_behind_is_told_by_the_means_of_the_seeds() -> None:
    near, far = never_behind(ROWS)
    assert near.holds
    assert near.evidence == "0.9900; the best of the others, DAO: 1.0000"
    assert far.holds is False
    assert far.evidence.startswith("0.9600")


def test_gains_are_told_of_natural_captions_alone() -> None:
    auroc, tpr = natural_gains(ROWS)
    assert auroc.claim.startswith("natural: dog: gains")
    assert auroc.holds  # .96 against .90
    assert tpr.holds is False  # .6 against .4


def test_detectors_without_a_score_are_nobody_to_be_behind() -> None:
    (only,) = never_behind([*ROWS[:2], row("templates", "abl", None)])
    assert only.holds
    assert "CFBD_COARSE" in only.evidence


def test_sets_without_poison_must_stay_quiet(tmp_path) -> None:
    clean = [
        {"case": "nothing", "name": "cfbd_robust", "detector": "R", "seed": s, "poisoned": 0}
        for s in (0, 1)
    ]
    kept = [{**clean[0], "clean_lost": 0}, {**clean[1], "clean_lost": 3}]
    (goal,) = quiet(kept)
    assert goal.holds is False
    assert "1 of 2 seeds" in goal.evidence
    results = {"title": "T", "command": "c", "rows": [*ROWS, *kept]}
    (tmp_path / "r.json").write_text(json.dumps(results))
    write_cases(tmp_path / "r.json", tmp_path / "r.md")
    page = (tmp_path / "r.md").read_text()
    assert "nothing: nothing is flagged as poisoned: **does not hold**" in page
    assert "| CFBD_ROBUST | 0.9900 | 0.9600 |" in page
