"""Every input row is in one verdict row and in one manifest."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmjax.scan import verdicts
from mmjax.scan.store import PAIR_SCHEMA


def _pairs(statuses: list[str]) -> pa.Table:
    n = len(statuses)
    return pa.table(
        {
            "key": [f"k{i}" for i in range(n)],
            "caption": ["a cat" if s != "missing_caption" else None for s in statuses],
            "status": statuses,
            "error_message": [""] * n,
            "flags": [["caption_truncated"] if i == 0 else [] for i in range(n)],
            "image_sha256": ["0"] * n,
        },
        schema=PAIR_SCHEMA,
    )


def _columns(verdict: list[str]) -> dict[str, np.ndarray]:
    n = len(verdict)
    columns: dict[str, np.ndarray] = {
        name: np.linspace(0, 1, n, dtype=np.float32) for name in verdicts.SCORES
    }
    columns["gmm_component"] = np.zeros(n, np.int8)
    columns["group"] = np.arange(n, dtype=np.int32)
    columns["coarse"] = np.array(["suspicious"] * n, dtype=object)
    columns["verdict"] = np.array(verdict, dtype=object)
    return columns


def test_rows_add_up_and_manifests_are_disjoint(tmp_path: Path) -> None:
    statuses = ["ok", "missing_caption", "ok", "ok", "truncated_image"]
    given = ["benign", "poisoned", "poisoned", "undetermined", "benign"]
    tables = [
        ("a", verdicts.verdict_table("a", _pairs(statuses), _columns(given))),
        ("b", verdicts.verdict_table("b", _pairs(["ok"]), _columns(["mismatched"]))),
    ]
    counts = verdicts.write_verdicts(tmp_path, tables)
    assert counts.total == 6
    assert counts.verdicts == {
        "benign": 1,
        "skipped": 2,
        "poisoned": 1,
        "undetermined": 1,
        "mismatched": 1,
    }
    assert counts.statuses == {"ok": 4, "missing_caption": 1, "truncated_image": 1}
    assert counts.flags == {"caption_truncated": 2}
    rows = []
    for manifest in verdicts.manifests("poisoned"):
        table = pq.read_table(tmp_path / f"{manifest}.parquet")
        rows += list(zip(table["shard"].to_pylist(), table["ordinal"].to_pylist(), strict=True))
    assert sorted(rows) == [("a", i) for i in range(5)] + [("b", 0)]


def test_mismatched_pairs_are_dropped_when_asked(tmp_path: Path) -> None:
    table = verdicts.verdict_table(
        "a", _pairs(["ok"] * 3), _columns(["mismatched", "poisoned", "benign"])
    )
    for drop, dropped in (("poisoned", [1]), ("mismatched", [0, 1])):
        verdicts.write_verdicts(tmp_path, [("a", table)], drop=drop)
        listed = pq.read_table(tmp_path / "drop.parquet")["ordinal"].to_pylist()
        kept = pq.read_table(tmp_path / "keep.parquet")["ordinal"].to_pylist()
        assert listed == dropped
        assert sorted(listed + kept) == [0, 1, 2]


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    columns = _columns(["poisoned", "benign"])
    columns["mismatch_probability"] = np.array([np.nan, 0.5], np.float32)
    columns["group"] = np.array([0, -1], np.int32)
    table = verdicts.verdict_table("a", _pairs(["ok"] * 2), columns)
    assert table["mismatch_probability"].to_pylist() == [None, 0.5]
    assert table["group"].to_pylist() == [0, None]


def test_skipped_rows_have_no_scores(tmp_path: Path) -> None:
    table = verdicts.verdict_table("a", _pairs(["missing_caption", "ok"]), _columns(["benign"] * 2))
    for name in verdicts.SCORES:
        assert table[name].to_pylist()[0] is None
        assert table[name].to_pylist()[1] is not None
    assert table["verdict"].to_pylist() == ["skipped", "benign"]
    verdicts.write_verdicts(tmp_path, [("a", table)])
    back = verdicts.read_verdicts(tmp_path)
    assert back.equals(table)
    assert back.schema.metadata[b"schema_version"] == b"1"
