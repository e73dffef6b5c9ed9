"""The pages of MEM's tables: means and standard deviations over seeds, both directions."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.evaluate.directions import Direction, above, lines
from mmjax.evaluate.mem_sets import ATTACKERS
from mmjax.evaluate.tables import read_results, write_page

_DIRECTIONS = {"image_to_text": "image → text", "text_to_image": "text → image"}
_COLUMNS = {
    **{
        f"{direction}_{figure}": f"{title} {name}"
        for direction, title in _DIRECTIONS.items()
        for figure, name in (("hit@10", "Hit@10"), ("medr", "MedR"))
    },
    "prefixed_image_to_text_hit@10": "`the the the` before test captions: image → text Hit@10",
    "own_image_to_text_hit@10": "clean copies of its own photos: image → text Hit@10",
    "training_loss": "last training loss",
}
_FIGURES = {f"{direction}_hit@10": f"{title}, Hit@10" for direction, title in _DIRECTIONS.items()}
_MEDR = {f"{direction}_medr": f"{title}, MedR" for direction, title in _DIRECTIONS.items()}
_OWN = "own_image_to_text_hit@10"
_OWN_TITLE = "clean copies of a victim's own photos, image → text, Hit@10"
_LEAST = 2.0
"""Points of Hit@10; what is less is no protection."""
_ASKED = (
    "What carries the effect, by Hit@10 on clean copies of a victim's own photos; what is within "
    "two points or two standard errors of the photos asked about cannot be told, and how much "
    "trainings differ is not in these errors:"
)
_NAMED = "image_to_text_hit@1"
_ASKED_FACES = (
    "Who is recognised, by Hit@1 of names for new photos; what is within two points or two "
    "standard errors of the photos asked about cannot be told, and how much trainings differ is "
    "not in these errors:"
)
_CLAIMS = (
    ("EM protects", "clean", "em_matched"),
    ("MEM-3 protects more than EM", "em_matched", "mem_3"),
    ("mem-plus protects more than MEM-3", "mem_3", "mem_plus"),
    ("random triggers protect without any noise", "clean", "random_trigger"),
    ("MEM-3 protects more than random triggers do", "random_trigger", "mem_3"),
    ("MEM-3's triggers need its noise", "mem_3_trigger", "mem_3"),
    ("cutting its triggers off undoes a part of MEM-3", "mem_3_strip", "mem_3"),
    ("MEM-3's noise protects without its triggers", "clean", "mem_3_strip"),
    ("without triggers mem-plus protects more than MEM-3", "mem_3_strip", "mem_plus_strip"),
    ("without triggers mem-plus protects more than EM", "em_matched", "mem_plus_strip"),
)
_PUBLISHED = ("strip", "jpeg_75", "strip_jpeg_75")
"""Attackers that what was published has to withstand (facts/mem.md 8)."""
Claim = tuple[str, str, str]
"""What is claimed, and the names of the set that is learned more and of the one less."""
Row = dict[str, Any]


def write_sets(results: Path, page: Path) -> None:
    """A row a set, a column a figure."""
    rows = read_results(results)["rows"]
    write_page(
        results,
        page,
        [*_sets(rows), "", _seeds(rows), "", *lines(_directions(rows, _CLAIMS), _ASKED)],
    )


def write_table2(results: Path, page: Path) -> None:
    """A row a victim, a column a set: MedR as the paper has it, then own photos."""
    rows = read_results(results)["rows"]
    body = _pivots(rows, "model", _models(rows), "victim", {**_MEDR, _OWN: _OWN_TITLE})
    directions = _directions(rows, _protected(rows, ("em_matched", "mem_3", "mem_plus")))
    write_page(results, page, [*body, _seeds(rows), "", *lines(directions, _ASKED)])


def write_table4(results: Path, page: Path) -> None:
    """A row a victim, a column a set, a table a figure; then who is recognised how well."""
    rows = read_results(results)["rows"]
    chance = next(row for row in rows if row["seed"] is None)
    first = {f"{direction}_hit@1": f"{title}, Hit@1" for direction, title in _DIRECTIONS.items()}
    body = [
        f"{chance['people']} people; {chance['photos']} photos that no victim was trained on.",
        "",
        *_pivots(rows, "model", _models(rows), "victim", {**first, **_FIGURES, **_MEDR}),
    ]
    claims = _protected(rows, ("em_matched", "mem_3", "mem_plus"))
    directions = _directions(rows, claims, _NAMED, chance["photos"])
    write_page(results, page, [*body, _seeds(rows), "", *lines(directions, _ASKED_FACES)])


def _models(rows: Sequence[Row]) -> dict[str, str]:
    return {model: model for model in dict.fromkeys(_each(rows, "model"))}


def _protected(rows: Sequence[Row], sets: Sequence[str]) -> list[Claim]:
    """That sets protect, for every victim that is there."""
    of = {
        (row["model"], row["name"].partition("@")[0]): row
        for row in rows
        if row["seed"] is not None
    }
    return [
        (
            f"{model}: {of[model, name]['set']} protects",
            of[model, "clean"]["name"],
            of[model, name]["name"],
        )
        for model in _models(rows)
        for name in sets
        if {(model, "clean"), (model, name)} <= of.keys()
    ]


def _directions(
    rows: Sequence[Row], claims: Sequence[Claim], figure: str = _OWN, asked: int | None = None
) -> list[Direction]:
    """The claims that the rows can bear out: of two sets, the first has the higher mean.

    Args:
        rows: of sets, and chance.
        claims: about sets that may not be there.
        figure: in percent.
        asked: photos behind it, of a seed; None = own photos.
    """
    found = {
        name: statistics.fmean(row[figure] for row in rows if row["name"] == name)
        for name in dict.fromkeys(_each(rows, "name"))
    }
    title = {row["name"]: _title(row) for row in rows}
    chance = next(row for row in rows if row["seed"] is None)
    photos = len(set(_each(rows, "seed"))) * (asked or chance["own_photos"])

    def told(claim: str, high: str, low: str) -> Direction:
        made = above(claim, found[high], found[low], (title[high], title[low]))
        spread = sum(found[name] * (100 - found[name]) for name in (high, low))
        near = abs(found[high] - found[low]) <= max(_LEAST, 2 * math.sqrt(spread / photos))
        return made._replace(holds=None) if near else made

    return [told(*each) for each in claims if set(each[1:]) <= found.keys()]


def _sets(rows: Sequence[Row]) -> list[str]:
    lines = [
        f"| set | {' | '.join(_COLUMNS.values())} |",
        "|---" + "|---:" * len(_COLUMNS) + "|",
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        found = [row for row in rows if row["name"] == name]
        shown = (_spread(found, figure) for figure in _COLUMNS)
        lines.append(f"| {_title(found[0])} | {' | '.join(shown)} |")
    return lines


def write_table3(results: Path, page: Path) -> None:
    """The table of sets, how natural their triggers are, and examples."""
    rows = read_results(results)["rows"]
    told = [row for row in rows if row.get("naturalness")]
    kinds = ("triggers", "random", "captions")
    lines = ["| set | seed | triggers | random words | captions |", "|---|---:|---:|---:|---:|"]
    for row in told:
        shown = " | ".join(f"{row['naturalness'][kind]:.2f}" for kind in kinds)
        lines.append(f"| {row['set']} | {row['seed']} | {shown} |")
    examples = [f"- {row['set']}: {text}" for row in told[:2] for text in row["examples"]]
    body = ["", "Naturalness:", "", *lines, "", "First captions:", "", *examples]
    write_page(results, page, [*_sets(rows), "", _seeds(rows), *body])


def write_robustness(results: Path, page: Path) -> None:
    """Tables of Hit@10: a row an attacker, a column a set; own photos, then a table a direction."""
    rows = read_results(results)["rows"]
    attackers = {name: ATTACKERS[name].title for name in dict.fromkeys(_each(rows, "attacker"))}
    figures = {_OWN: _OWN_TITLE, **_FIGURES}
    body = _pivots(rows, "attacker", attackers, "attacker", figures)
    claims = [
        (
            f"{ATTACKERS[attacker].title}: mem-plus is learned less than {other}",
            f"{name}+{attacker}",
            f"mem_plus+{attacker}",
        )
        for attacker in _PUBLISHED
        for name, other in (("em_matched", "EM"), ("mem_3", "MEM-3"))
    ]
    write_page(results, page, [*body, _seeds(rows), "", *lines(_directions(rows, claims), _ASKED)])


def write_partial(results: Path, page: Path) -> None:
    """A table a direction: a row a share, a column a set, Hit@10."""
    rows = read_results(results)["rows"]
    shares = {share: f"{share:.0%}" for share in sorted(set(_each(rows, "share")))}
    body = _pivots(rows, "share", shares, "photos protected", _FIGURES)
    write_page(results, page, [*body, _seeds(rows)])


def _pivots(
    rows: Sequence[Row], key: str, down: dict[Any, str], head: str, figures: Mapping[str, str]
) -> list[str]:
    sets = list(dict.fromkeys(_each(rows, "set")))
    chance = next(row for row in rows if row["seed"] is None)
    lines = []
    for figure, title in figures.items():
        lines += [
            f"{title} (chance {chance[figure]:.1f}):",
            "",
            f"| {head} | {' | '.join(sets)} |",
            "|---" + "|---:" * len(sets) + "|",
        ]
        for value, name in down.items():
            cells = (
                _spread([r for r in rows if r.get(key) == value and r["set"] == each], figure)
                for each in sets
            )
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def _each(rows: Sequence[Row], key: str) -> list[Any]:
    return [row[key] for row in rows if row["seed"] is not None]


def _title(row: Row) -> str:
    attacker = row.get("attacker", "none")
    return row["set"] if attacker == "none" else f"{row['set']}, {ATTACKERS[attacker].title}"


def _seeds(rows: Sequence[Row]) -> str:
    return f"Mean ± standard deviation over seeds: {sorted(set(_each(rows, 'seed')))}."


def _spread(rows: Sequence[Row], figure: str) -> str:
    values = [row[figure] for row in rows if figure in row]
    if not values:
        return "–"
    mean = statistics.fmean(values)
    digits = 2 if figure == "training_loss" else 1
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f}"
