"""Rehearsals: what is drawn is what it says, and the page is arithmetic on what was measured."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmjax.data.embeddings import open_embeddings
from mmjax.measure import rehearsal, rehearsal_set
from mmjax.measure.rehearsal_page import page


def test_a_set_is_drawn_shard_by_shard(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rehearsal_set, "ROWS", 400)
    rehearsal_set.write_set(tmp_path / "one", 1000, 64, seed=3)
    rehearsal_set.write_set(tmp_path / "two", 800, 64, seed=3)
    source, other = (open_embeddings(tmp_path / name) for name in ("one", "two"))
    assert [source.sizes[shard.name] for shard in source.shards] == [400, 400, 200]
    one, two = source.open_shard(source.shards[1]), other.open_shard(other.shards[1])
    assert one.image.dtype == np.float16
    assert one.norm_error < 2e-3
    np.testing.assert_array_equal(one.image, two.image)  # a larger set begins with the smaller one
    assert one.captions == two.captions
    labels = pq.read_table(tmp_path / "one" / "poison_labels.parquet")
    assert labels["shard"].to_pylist()[::400] == ["00000", "00001", "00002"]
    assert labels["ordinal"].to_pylist()[398:402] == [398, 399, 0, 1]


def test_poison_keeps_together_and_does_not_fit_its_images() -> None:
    drawn = rehearsal_set.draw(4000, 128, 0, seed=0)
    image, text = drawn.image.astype(np.float32), drawn.text.astype(np.float32)
    bad = drawn.poisoned
    assert 4 <= bad.sum() <= 24
    fit = np.sum(image * text, axis=1)
    assert fit[bad].max() < np.median(fit[~bad])
    close = text[bad] @ text[bad].T
    assert np.median(close) > np.median(text[~bad][:50] @ text[~bad][:50].T) + 0.2
    assert all(c.startswith("the target") == b for c, b in zip(drawn.captions, bad, strict=True))
    assert len(set(drawn.captions)) < 4000, "some captions repeat"
    clean = rehearsal_set.draw(4000, 128, 0, seed=0, clean=True)
    assert not clean.poisoned.any()
    assert len(set(clean.captions)) == 4000


def result(pairs, cpu, memory, mode="paper"):
    step = {"seconds": 1.0, "cpu": cpu, "resident": memory, "load": 1.0}
    return {
        "pairs": pairs, "dimension": 8, "mode": mode, "kind": "ridge", "stored_bytes": 4e9,
        "steps": [{"name": name, **step} for name in ("scan", "rescore")],
        "found": {"poisoned": 9, "flagged": 8, "wrongly": 1},
    }  # fmt: skip


def test_the_page_tells_slopes_between_the_smallest_and_the_largest_size() -> None:
    made = page([result(3_000_000, 40, 2e9), result(1_500_000, 9, 1), result(1_000_000, 20, 3e9)])
    assert made.count("| 8 of 9 |") == 3
    line = next(line for line in made.splitlines() if line.startswith("- paper, ridge, scan"))
    assert "a million pairs more (1,000,000 to 3,000,000): 10.0 CPU seconds, " in line
    assert "on a line 1.1 CPU hours for 400 million; no growth in MB of memory" in line


def test_the_page_tells_what_a_search_costs() -> None:
    # 16 n (20,000 + n): 3.36 and 8.96 GFLOP
    made = page([result(10_000, 1, 1, "robust"), result(20_000, 2, 1, "robust")])
    (line,) = [line for line in made.splitlines() if line.startswith("- robust")]
    assert "scan: 8 GFLOP a CPU second" in line


@pytest.mark.slow
def test_a_rehearsal_leaves_a_result_and_a_page(tmp_path) -> None:
    given = ("--pairs=3000", "--dimension=32", f"--folder={tmp_path / 'f'}", f"--out={tmp_path}")
    assert rehearsal.main(given) == 0
    found = json.loads((tmp_path / "rehearsal-paper-ridge-3000-32.json").read_text())
    assert sum(found["counts"].values()) == 3000
    assert [step["name"] for step in found["steps"]] == ["scan", "rescore"]
    assert all(step["resident"] > 1e8 and step["cpu"] > 0.5 for step in found["steps"])
    assert found["stored_bytes"] > 2 * 3000 * 32 * 2
    assert "| paper, ridge | 3,000 | scan |" in (tmp_path / "rehearsal.md").read_text()
