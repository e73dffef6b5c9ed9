"""The pages of CFBD's Tables 1 and 2."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmjax.evaluate.cfbd_cells import distinct, mean
from mmjax.evaluate.directions import Direction, lines
from mmjax.evaluate.experiment import Rows
from mmjax.evaluate.sweeps import NOT_YET, SUCCEEDS
from mmjax.evaluate.tables import cell, pivot, read_results, write_page

TITLES = {
    "clean": "trained on clean pairs",
    "none": "no defence",
    "cleanclip": "CleanCLIP",
    "roclip": "RoCLIP",
    "safeclip": "SafeCLIP",
    "abl": "ABL",
    "coarse": "CFBD, coarse stage",
    "paper": "CFBD, fine stage",
    "robust": "mmjax scan, robust mode",
}
PAIRED = ("hit@1", "hit@10", "hit@50", "min_rank", "others_hit@10", "others_min_rank")
COLUMNS = (
    "attack", "method", "seed", "learning_rate", "pairs", "poisoned", "survivors", "clean_lost",
    "acc1", "acc5", "asr", "false_alarms", "hit@10", "min_rank",
    "isolation_auroc", "isolation_recall", "psnr", "ssim", "tried", "reached", "reason",
)  # fmt: skip
SWEPT = ("attack", "seed", "learning_rate", "acc1", "asr", "hit@10", "chosen", "reason")
TUNED = ("method", "learning_rate", "acc1", "asr", "hit@10", "chosen", "reason")


def write_table1(results_json: Path, out_md: Path) -> None:
    """The page of Table 1: zero-shot accuracy by method and attack."""
    tuning, rows = _read(results_json)
    body = [f"Zero-shot top-1 accuracy, {_mean_of(rows)}:", ""]
    body += [*pivot(rows, "method", "attack", "acc1"), ""]
    body += [*lines(accuracy_directions(rows), "What is claimed:"), ""]
    body += [*_all(rows), *_tuned(tuning, rows)]
    write_page(results_json, out_md, body)


def write_table2(results_json: Path, out_md: Path) -> None:
    """The page of Table 2: attack success by method and attack, and mmPoison's measures."""
    tuning, rows = _read(results_json)
    triggered = [row for row in rows if row["attack"] != "mmpoison"]
    body: list[str] = []
    if triggered:
        told = _mean_of(triggered)
        body += [f"Attack success rate (images that do not show the target), {told}:", ""]
        body += [*pivot(triggered, "method", "attack", "asr"), ""]
        body += ["The same without the trigger:", ""]
        body += [*pivot(triggered, "method", "attack", "false_alarms"), ""]
    paired = [
        {**row, "measure": name, "value": row.get(name)}
        for row in rows
        if row["attack"] == "mmpoison"
        for name in PAIRED
    ]
    if paired:
        body += ["mmPoison, captions of the target that search all images (others: captions that "
                 f"name neither), {_mean_of(paired)}:", ""]  # fmt: skip
        body += [*pivot(paired, "method", "measure", "value"), ""]
    body += [*lines(success_directions(rows), "What is claimed:"), ""]
    body += [*_all(rows), *_tuned(tuning, rows)]
    write_page(results_json, out_md, body)


def accuracy_directions(rows: Rows) -> list[Direction]:
    """How far accuracies may lie from that of clean training."""
    claims = (
        ("none", 0.02, "without defence accuracy is within 2 points of clean training"),
        ("robust", 0.01, "after a scan in robust mode accuracy is within 1 point of it"),
    )
    made = []
    for method, within, claim in claims:
        for attack in distinct(rows, "attack"):
            clean, found = (
                mean(rows, "acc1", method=TITLES[name], attack=attack) for name in ("clean", method)
            )
            told = f"{attack}: {claim}"
            made.append(_within(told, clean, found, within, below_only=True))
    return made


def success_directions(rows: Rows) -> list[Direction]:
    """That attacks succeed without defence, and not after a scan."""
    made = []
    for attack in distinct(rows, "attack"):
        value = "hit@10" if attack == "mmpoison" else "asr"
        clean, none, robust = (
            mean(rows, value, method=TITLES[name], attack=attack)
            for name in ("clean", "none", "robust")
        )
        reached = None if none is None else none > SUCCEEDS
        told = "not measured" if none is None else f"{none:.4g}"
        claim = f"{attack}: without defence over 80 % of the images are taken for the target"
        if attack == "mmpoison":
            claim = f"{attack}: without defence Hit@10 is over 80 %"
        made.append(Direction(claim, reached, told))
        claim = f"{attack}: after a scan in robust mode {value} is within 1 point of clean training"
        made.append(_within(claim, clean, robust, 0.01))
        made += _isolation(attack, rows)
    return made


def _isolation(attack: str, rows: Rows) -> list[Direction]:
    """That losses isolate less poison than a scan finds, where both were measured."""
    here = {"attack": attack}
    isolated = mean(rows, "isolation_recall", method=TITLES["abl"], **here)
    left, all_of_it = (
        mean(rows, name, method=TITLES["robust"], **here) for name in ("survivors", "poisoned")
    )
    if isolated is None or left is None or not all_of_it:
        return []
    found = 1 - left / all_of_it
    claim = f"{attack}: ABL's losses isolate less of the poison than the robust mode finds"
    return [Direction(claim, isolated < found, f"{isolated:.4g}, {found:.4g}")]


def _within(
    claim: str,
    clean: float | None,
    found: float | None,
    limit: float,
    *,
    below_only: bool = False,
) -> Direction:
    """The claim that a figure is not farther from that of clean training than a limit."""
    if clean is None or found is None:
        return Direction(claim, None, "not measured")
    gap = clean - found if below_only else abs(clean - found)
    return Direction(claim, gap <= limit, f"{found:.4g}, clean {clean:.4g}")


def _read(results_json: Path) -> tuple[Rows, Rows]:
    """The rows of the tuning, and the tables' own, with the methods' titles."""
    rows = [
        {**row, "method": TITLES.get(row["method"], row["method"])}
        for row in read_results(results_json)["rows"]
    ]
    return [row for row in rows if row.get("tuning")], [row for row in rows if "tuning" not in row]


def _all(rows: Rows) -> list[str]:
    """All rows, and how their learning rates were found."""
    return [
        *_table(rows, COLUMNS),
        "",
        "reached: whether some learning rate that was tried lets the attack succeed in over 80 % "
        "(mmPoison: Hit@10) without defence. The first that does with an accuracy within 2 points "
        "of clean training, or else the first that does, or without any the one where it does "
        "best, is that of all of its rows but those of defences in training; CleanCLIP starts "
        "from the undefended model of that rate. tried: how many rates were trained. "
        "psnr (dB), ssim: of judged scenes with the trigger against those without.",
        *_left(rows),
    ]


def _tuned(tuning: Rows, judged: Rows) -> list[str]:
    """The trainings by which learning rates were found: of the attacks, and of the defences."""
    rows = [row if row["chosen"] else {**row, "chosen": None} for row in tuning]
    attacks = [row for row in rows if row["tuning"] == "attack"]
    told = ["", "Undefended trainings by learning rate:", "", *_table(attacks, SWEPT)]
    defences = [row for row in rows if row["tuning"] == "defence"]
    if not defences:
        return told
    attack, seed = defences[0]["attack"], defences[0]["seed"]
    flattered = any(row["attack"] == attack and row["seed"] == seed for row in judged)
    return [
        *told,
        "",
        f"The learning rate of each defence in training, chosen on {attack}, seed {seed}, and "
        "taken for all attacks: the one at which accuracy exceeds the attack's success the most"
        + (f", which flatters its row of {attack}, seed {seed}, above. " if flattered else ". ")
        + "Undefended trainings at the same rates beside them.",
        "",
        *_table(defences, TUNED),
        *_left(defences),
    ]


def _table(rows: Rows, names: Sequence[str]) -> list[str]:
    """A table of rows; columns that are empty are left out."""
    columns = [name for name in names if any(row.get(name) is not None for row in rows)]
    texts = ("attack", "method", "reason")

    def shown(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "**no**"
        return cell(value)

    return [
        "| " + " | ".join(name.replace("_", " ") for name in columns) + " |",
        "|" + "|".join("---" if name in texts else "---:" for name in columns) + "|",
        *("| " + " | ".join(shown(row.get(name)) for name in columns) + " |" for row in rows),
    ]


def _mean_of(rows: Rows) -> str:
    """Of which seeds the figures of a table are means."""
    seeds = ", ".join(map(str, distinct(rows, "seed")))
    left = any(row.get("reason") == NOT_YET for row in rows)
    which = ", of those that are trained (all rows below)" if left else ""
    return f"mean of the seeds {seeds}{which}"


def _left(rows: Rows) -> list[str]:
    """What is to do where rows are not trained yet."""
    left = sum(row.get("reason") == NOT_YET for row in rows)
    if not left:
        return []
    told = f"{left} of {len(rows)} rows are not trained yet: the command above without"
    return ["", f"{told} `--config.trained.done_only=True` trains them, and goes on from these."]
