"""The rows of a results table from a verdict table."""

import pyarrow as pa
import pytest

from mmjax.evaluate.comparison import compare

F32 = pa.float32()
VERDICTS = pa.table(
    {
        "status": ["ok", "ok", "ok", "truncated_image", "ok"],
        "caption": ["a banana", "a banana", "a dog on a beach", "a cat", "two men talk"],
        "sim_original": pa.array([0.1, 0.4, 0.5, None, 0.3], F32),
        "consistency": pa.array([0.9, 0.5, 0.1, None, 0.6], F32),
        "text_correlation": pa.array([0.9, 0.8, 0.2, None, 0.1], F32),
        "coarse": ["seed", "suspicious", "benign", "", "seed"],
        "is_poisoned": [True, True, False, False, False],
        "truth": [True, True, False, True, False],
    }
)


def test_every_detector_has_its_row() -> None:
    rows = {r["detector"]: r for r in compare(VERDICTS)}
    assert len(rows) == 5
    fine, coarse = rows["CFBD, fine stage (z)"], rows["CFBD, coarse stage (c)"]
    assert fine["auroc"] == 1
    assert (fine["tpr"], fine["fpr"], fine["survivors"], fine["clean_lost"]) == (1, 0, 0, 0)
    assert fine["skipped_poisoned"] == 1
    assert fine["seed_purity"] == 0.5
    assert fine["coarse_auroc"] == coarse["auroc"] == pytest.approx(3 / 4)
    assert (coarse["tpr"], coarse["clean_lost"]) == (1, 1)
    assert rows["−s_o alone"]["auroc"] == pytest.approx(3 / 4)
    assert rows["near-duplicate captions"]["auroc"] == 1
    assert rows["chance"]["tpr"] is None
