"""All detectors on one scan: the verb, its files, and recorded losses."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmjax.cli import main
from mmjax.core.errors import ConfigError, InputError
from mmjax.evaluate.cells import OWN
from mmjax.evaluate.detection import compare_detectors, read_losses
from mmjax.scan.detectors import DETECTORS
from tests.e2e.conftest import embeddings, hashes, verdicts

ROWS, POISON = 400, 40


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished scan of embeddings and its labels."""
    folder = tmp_path_factory.mktemp("detection")
    embeddings(folder / "set", ROWS, seed=1, poison=POISON)
    embeddings(folder / "reference", ROWS, seed=3)
    flags = [f"--reference={folder / 'reference'}", "--config.fit.kind=ridge"]
    assert main(["scan", str(folder / "set"), *flags, f"--out={folder / 'run'}"]) == 0
    table = verdicts(folder / "run").select(["shard", "ordinal", "caption"])
    bad = ["banana" in caption for caption in table["caption"].to_pylist()]
    labels = folder / "labels.parquet"
    pq.write_table(table.append_column("is_poisoned", pa.array(bad)), labels)
    loss = [[0.1, 0.3] if b else [3.0, 1.0] for b in bad]
    pq.write_table(table.append_column("loss", pa.array(loss)), folder / "losses.parquet")
    return folder / "run", labels


def test_the_verb_measures_every_detector(
    scanned: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, labels = scanned
    before = hashes(run, without=("log.jsonl",))
    assert main(["detectors", str(run), f"--truth={labels}"]) == 0
    assert hashes(run, without=("log.jsonl", "detectors")) == before
    page = (run / "detectors" / "detectors.md").read_text()
    assert page in capsys.readouterr().out
    rows = json.loads((run / "detectors" / "detectors.json").read_text())["rows"]
    assert [row["name"] for row in rows] == list(DETECTORS)
    told = {row["name"]: row for row in rows}
    assert "auroc" not in told["abl"]
    assert "| ABL, loss isolation | – |" in page
    assert "give --losses=FILE" in page
    measured = [row for row in rows if row["name"] != "abl"]
    assert {(row["pairs"], row["poisoned"]) for row in measured} == {(ROWS, POISON)}
    assert {row["name"] for row in rows if row.get("seed_purity") is not None} == set(OWN)
    decided = np.array(verdicts(run)["is_poisoned"].to_pylist())
    assert told["cfbd_robust"]["flagged"] == decided.sum()
    assert told["cfbd_robust"]["auroc"] > 0.95 > told["chance"]["auroc"]
    assert told["cfbd_coarse"]["auroc"] == told["cfbd_fine"]["coarse_auroc"]


def test_losses_are_read_and_averaged(scanned: tuple[Path, Path]) -> None:
    run, labels = scanned
    losses = run.parent / "losses.parquet"
    rows = compare_detectors(run, labels, names=["abl"], losses=losses)
    assert [(row["name"], row["auroc"]) for row in rows] == [("abl", 1.0)]
    table = verdicts(run)
    assert set(read_losses(losses, table).tolist()) == {np.float32(0.2), np.float32(2.0)}


def test_losses_of_another_set_are_refused(scanned: tuple[Path, Path], tmp_path: Path) -> None:
    run, labels = scanned
    table = verdicts(run)
    short = pq.read_table(run.parent / "losses.parquet").slice(1)
    pq.write_table(short, tmp_path / "short.parquet")
    with pytest.raises(InputError, match="lacks the losses of 1 of 400 pairs"):
        read_losses(tmp_path / "short.parquet", table)
    with pytest.raises(InputError, match="shard, ordinal and loss is wanted"):
        read_losses(labels, table)
    # a skipped row has no loss, as nobody trained on it
    skipped = table.set_column(
        table.column_names.index("status"), "status", pa.array(["missing_image", *["ok"] * 399])
    )
    losses = read_losses(tmp_path / "short.parquet", skipped)
    assert np.flatnonzero(np.isnan(losses)).tolist() == [0]


def test_unknown_detectors_and_a_missing_truth_are_refused(
    scanned: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, labels = scanned
    with pytest.raises(ConfigError, match="unknown detector 'lof'"):
        compare_detectors(run, labels, names=["lof"])
    assert main(["detectors", str(run)]) == 2
    assert "--truth=FILE is wanted" in capsys.readouterr().err
