import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmjax.data.pairs import PairTable
from mmjax.evaluate.detection import read_losses
from mmjax.train.defence import AblConfig
from mmjax.train.isolation import isolated_pairs, write_isolation

RECORDS = [np.float32([3, 1, 2, 5]), np.float32([1, 4, 1, 5])]
"""Means 2, 2.5, 1.5, 5."""


@pytest.mark.parametrize(
    ("isolate", "wanted"),
    [(0.0, []), (0.25, [2]), (0.5, [0, 2]), (1.0, [2]), (3.0, [0, 1, 2]), (9.0, [0, 1, 2, 3])],
)
def test_a_share_or_a_number_of_the_lowest_mean_losses(isolate, wanted):
    isolated = isolated_pairs(RECORDS, AblConfig(isolate=isolate))
    assert np.flatnonzero(isolated).tolist() == wanted


def test_files_name_pairs_by_where_they_were_read(tmp_path):
    images = np.zeros((2, 2, 2, 3), np.uint8)
    origins = (("a", 0), ("b", 1), ("a", 2), ("b", 0))
    table = PairTable(images, (("x", "y"), ("z", "w")), {}, origins)
    write_isolation(tmp_path, table, RECORDS, AblConfig(isolate=2.0))
    isolated = pq.read_table(tmp_path / "isolated.parquet").to_pylist()
    assert isolated == [{"shard": "a", "ordinal": 0}, {"shard": "a", "ordinal": 2}]
    verdicts = pa.table(
        {
            "shard": ["a", "a", "a", "b", "b"],
            "ordinal": [0, 1, 2, 0, 1],
            "status": ["ok", "truncated_image", "ok", "ok", "ok"],
        }
    )
    losses = read_losses(tmp_path / "losses.parquet", verdicts)
    np.testing.assert_array_equal(losses, np.float32([2, np.nan, 1.5, 5, 2.5]))
