"""The page of all plans that a folder holds.

python -m mmjax.measure.plan_page docs/results/plans
"""

import json
import sys
from pathlib import Path
from typing import Any

from mmjax.core.files import write_bytes

_HEAD = """# Plans: steps compiled for TPUs that are not here

Made from the files of `mmjax plan ... --out=FILE.json` beside this page by
`python -m mmjax.measure.plan_page FOLDER`. "At least" is a roofline from published peaks
(`mmjax/measure/chips.py`) and from 250 images a second that a host's core is taken to read; it is
a bound, not a forecast. Compile times are of the machine that planned, which did other work too.
Minutes are those of all rows: of a scan 3.3 million pairs, CC-3M's number. Where reading
(decode) binds, as many host cores as the last column says lift it; so do shards whose images are
stored at the model's size.

| step | batch | topology | compiled, s | fits | GB a device | TFLOP a device | traffic, GB | collectives (MB in all, the largest) | binds | rows/s at most | rows | minutes at least | chip-hours | host cores to keep up |
|---|---:|---|---:|---|---:|---:|---:|---|---|---:|---:|---:|---:|---:|
"""  # noqa: E501


def write_page(folder: Path) -> Path:
    """Write `plans.md` beside the plans of a folder."""
    rows = []
    for file in sorted(folder.glob("*.json")):
        rows += [_row(plan) for plan in json.loads(file.read_text(encoding="utf-8"))]
    page = folder / "plans.md"
    write_bytes(page, (_HEAD + "\n".join(rows) + "\n").encode())
    return page


def _row(plan: dict[str, Any]) -> str:
    memory = plan["arguments"] + plan["temporaries"] + plan["output"]
    collectives = ", ".join(
        f"{number} {kind} ({size / 1e6:.1f}, {largest / 1e6:.1f})"
        for kind, (number, size, largest) in plan["collectives"].items()
    )
    cells = [
        f"{plan['step']} {plan['preset']}",
        f"{plan['batch_size']:,}",
        f"{plan['platform']} {plan['topology']}",
        f"{plan['seconds']:.0f}",
        "yes" if plan["fits"] else f"NO: {plan['why']}",
    ]
    if plan["fits"]:
        cells += [
            f"{memory / 1e9:.2f}",
            f"{plan['flops'] / 1e12:.3f}",
            f"{plan['traffic'] / 1e9:.1f}",
            collectives or "none",
        ]
    else:
        cells += [""] * 4
    bound = plan["bounds"]
    if bound:
        cells += [plan["binds"], f"{plan['rows_per_second']:,.0f}", f"{plan['rows']:,.0f}"]
        cells += [f"{60 * plan['hours']:.1f}", f"{plan['chip_hours']:.2f}"]
    else:
        cells += [""] * 5
    cells += [f"{plan['cores_needed']:,}" if bound and plan["step"] in ("encode", "train") else ""]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    write_page(Path(sys.argv[1]))
