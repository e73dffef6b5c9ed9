"""The speed page has a row a size, and its ratios are those of its own figures."""

import json
from pathlib import Path

from mmjax.measure.neighbours import measure, write


def test_the_page_follows_the_figures(tmp_path: Path) -> None:
    rows = measure(((32, 64, 8),), repeats=1)
    assert all(rows[0][f"{n}_gflops"] > 0 for n in ("product", "nearest", "count_above"))
    given = {"product_gflops": 100.0, "nearest_gflops": 95.0, "count_above_gflops": 110.0}
    write(tmp_path, [{"queries": 8192, "keys": 32768, "width": 384, **given}])
    page = (tmp_path / "neighbours.md").read_text()
    assert "| 8,192 | 32,768 | 384 | 100 | 95 | 0.95 | 110 | 1.10 |" in page
    told = json.loads((tmp_path / "neighbours.json").read_text())
    assert told["command"] in page
    assert told["rows"][0]["nearest_gflops"] == 95.0
