"""The page of all cases that a folder holds results of."""

from pathlib import Path
from typing import Any

from mmjax.core.files import write_bytes
from mmjax.measure.bench import CASES, lines, plural, read
from mmjax.measure.bench_goals import judge, table

NAME = "performance.md"
_HEAD = """# How fast it is

Made by `mmjax bench CASE --out=FOLDER` from the `bench-CASE.json` beside this page. What is
compared ran in turn in one process; medians, quartiles in brackets. "First" compiles. Shares are
of the machine's own peaks (products, a copy), measured in the same turns; a machine that is shared
with others moves both. Peers in torch have one thread or one for each core, float32 or bfloat16,
and, of towers, batches of 16 or of all rows, whichever was faster before the turns; mmjax has all
cores.
"""
_GOALS = """## Goals

Rates of parts over those of their peers, from the medians below: how many times as fast. Goals are
of `--size=full`. Where a part's type is not named it is the faster of float32 and bfloat16.
"""


def write_page(folder: Path) -> Path:
    """Write the page of a folder's results."""
    files = {case: folder / f"bench-{case}.json" for case in CASES}
    results = {case: read(file) for case, file in files.items() if file.is_file()}
    body = [_HEAD, _GOALS, *table(judge(results)), ""]
    for found in results.values():
        body += [*_section(found), ""]
    page = folder / NAME
    write_bytes(page, "\n".join(body).encode())
    return page


def _section(found: dict[str, Any]) -> list[str]:
    made = found["versions"]
    used = ", ".join(f"{name} {made[name]}" for name in ("jax", "torch") if name in made)
    head = (
        f"## {found['case']}\n\n`mmjax bench {found['case']} --size={found['size']} "
        f"--repeats={found['repeats']}{_data(found)}`: {found['devices']} x {found['device']}, "
        f"{used}, {found['resident_mb']:,.0f} MB resident at most; peaks "
        + ", ".join(f"{name} {rate / 1e9:,.1f} G/s" for name, rate in found["peaks"].items())
        + "\n"
    )
    rows = [
        "| | a second | ms | CPU ms | first, s | of the peak |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in found["rows"]:
        low, high = (1e3 * value for value in row["quartiles"])
        share = f"{row['share_of_peak']:.0%}" if "share_of_peak" in row else ""
        rows.append(
            f"| {row['name']}{_remark(row)} "
            f"| {row['items_per_second']:,.4g} {plural(row['unit'])} "
            f"| {1e3 * row['seconds']:,.1f} ({low:,.1f}-{high:,.1f}) "
            f"| {1e3 * row['cpu_seconds']:,.1f} | {row['first_seconds']:.1f} | {share} |"
        )
    ratios = [f"- {line}" for line in list(lines(found))[len(found["rows"]) :]]
    return [head, *rows, *([""] if ratios else []), *ratios]


def _remark(row: dict[str, Any]) -> str:
    if not row["peer"]:
        return ""
    threads = f"{row['threads']} thread(s)" if "threads" in row else ""
    return f" ({', '.join(filter(None, ('peer', row.get('compute'), threads)))})"


def _data(found: dict[str, Any]) -> str:
    return f" --config.data=DATA/{found['data']}" if found.get("data") else ""
