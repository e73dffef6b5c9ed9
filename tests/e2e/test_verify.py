"""`mmjax verify`: a finished run is what was written, or it is said what is not."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmjax.core.rundir import RunDir
from tests.core.test_rundir import Config
from tests.e2e.conftest import Run, World, embeddings, hashes

pytestmark = pytest.mark.e2e


@pytest.fixture
def copy(scanned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scanned, tmp_path / "run"))


def test_a_finished_scan_is_as_it_was(scanned: Path, run: Run) -> None:
    ran = run("verify", scanned)
    assert ran.code == 0, ran.err + ran.out
    assert "files are as they were written, and all adds up" in ran.out
    assert "not compared" not in ran.out


def test_a_rescore_is_checked_too(copy: Path, tmp_path: Path, run: Run) -> None:
    assert run("rescore", copy, "--fdr=0.2", f"--out={tmp_path / 'again'}").code == 0
    assert run("verify", tmp_path / "again").code == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("embeddings/00001.image.npy", "its content has changed"),
        ("clean/00000.tar", "its content has changed"),
        ("verdicts/00002.parquet", "its content has changed"),
        ("report/index.html", "its content has changed"),
        ("keep.parquet", "its content has changed"),
        ("mapping/mapping.json", "its content has changed"),
    ],
)
def test_one_changed_byte_is_named(name: str, said: str, copy: Path, run: Run) -> None:
    file = copy / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    ran = run("verify", copy)
    assert ran.code == 2
    assert ran.out.splitlines() == [f"{name}: {said}"]
    assert ran.last.endswith("is not what was written: 1 findings")


def test_a_damaged_scan_is_not_decided_on(copy: Path, run: Run) -> None:
    ran = run("rescore", copy, f"--out={copy}")
    assert ran.code == 2
    assert "is the scan itself; choose another --out" in ran.last
    file = copy / "embeddings" / "00001.text.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    ran = run("rescore", copy, "--fdr=0.2")
    assert ran.code == 2
    assert "what the scan kept of 00001 is damaged" in ran.last
    (copy / "journal" / "00000.json").unlink()
    assert "what the scan kept of 00000 is damaged" in run("rescore", copy, "--fdr=0.2").last


def test_lost_and_cut_files_are_named(copy: Path, run: Run) -> None:
    (copy / "pairs" / "00000.parquet").unlink()
    (copy / "drop.parquet").write_bytes(b"PAR1")
    ran = run("verify", copy)
    assert ran.code == 2
    assert "pairs/00000.parquet: is gone" in ran.out
    assert "drop.parquet: 4 bytes" in ran.out


def rewritten(copy: Path, name: str, change) -> None:
    """Change a file and its entry in the journal, as a forger would."""
    change(copy / name)
    journal = copy / "journal" / "stage" / "decision.json"
    known = json.loads(journal.read_text())
    with RunDir.open(copy / "other", verb="scan", config=Config()) as other:
        (other.path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(copy / name, other.path / name)
        other.finish("x", {name: other.path / name})
        known["outputs"][name] = other.journal("x")["outputs"][name]
    shutil.rmtree(copy / "other")
    journal.write_text(json.dumps(known))


def forget_a_row(file: Path) -> None:
    table = pq.read_table(file)
    pq.write_table(table.slice(1), file)


def change_counts(file: Path) -> None:
    summary = json.loads(file.read_text())
    summary["counts"]["benign"] -= 1
    file.write_text(json.dumps(summary))


def call_it_poisoned(file: Path) -> None:
    table = pq.read_table(file)
    verdicts = ["poisoned", *table["verdict"].to_pylist()[1:]]
    at = table.schema.get_field_index("verdict")
    pq.write_table(table.set_column(at, "verdict", pa.array(verdicts)), file)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("keep.parquet", forget_a_row, "not every row is in exactly one of them"),
        ("verdicts/00001.parquet", forget_a_row, "verdicts/00001.parquet: 39 rows, 40 were read"),
        ("summary.json", change_counts, "summary.json: counts are"),
        ("keep.parquet", call_it_poisoned, "keep.parquet: 1 rows that do not belong there"),
    ],
)
def test_what_does_not_add_up_is_named(name: str, change, said: str, copy: Path, run: Run) -> None:
    rewritten(copy, name, change)
    ran = run("verify", copy)
    assert ran.code == 2
    assert said in ran.out


def test_a_changed_configuration_or_input_is_named(
    copy: Path, world: World, tmp_path: Path, run: Run
) -> None:
    known = json.loads((copy / "run.json").read_text())
    known["config"]["stages"]["fdr"] = 0.5
    (copy / "run.json").write_text(json.dumps(known))
    ran = run("verify", copy)
    assert ran.code == 2
    assert "the configuration is not the one of its digest" in ran.out
    shards = tmp_path / "shards"
    shutil.copytree(world.shards, shards)
    out = tmp_path / "mapping"
    (shards / "00000.tar").rename(shards / "mapping.tar")  # a name as the journal has one
    assert run("scan", shards, *world.flags, f"--out={out}").code == 0
    assert run("verify", out).code == 0
    shutil.copy(shards / "00001.tar", shards / "00002.tar")
    (shards / "00003.tar").unlink()
    ran = run("verify", out)
    assert ran.code == 2
    assert "input 00002: has changed since\ninput 00003: is gone" in ran.out
    shutil.rmtree(shards)
    ran = run("verify", out)
    assert ran.code == 0
    assert "the input was not compared" in ran.out


def test_embeddings_that_changed_are_named_and_not_decided_on(tmp_path: Path, run: Run) -> None:
    given = embeddings(tmp_path / "given", 300, seed=1, poison=12)
    reference, out = embeddings(tmp_path / "reference", 600, seed=3), tmp_path / "run"
    flags = [f"--reference={reference}", "--config.fit.kind=ridge"]
    assert run("scan", given, *flags, f"--out={out}").code == 0
    assert run("verify", out).code == 0
    assert run("rescore", out, "--fdr=0.3").code == 0
    before = hashes(out)
    array = given / "img_emb" / "img_emb_0.npy"
    whole = array.read_bytes()
    array.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1, whole[-1]]))
    ran = run("verify", out)
    assert ran.code == 2
    assert ran.out.splitlines() == ["input 00000: has changed since"]
    ran = run("rescore", out, "--fdr=0.2")
    assert ran.code == 2
    assert ran.last.endswith("input 00000: has changed since the scan read it; scan again")
    assert hashes(out) == before
    array.write_bytes(whole)
    (out / "pairs" / "00000.parquet").write_bytes(b"PAR1")
    ran = run("rescore", out, "--fdr=0.2")
    assert ran.code == 2
    assert "what the scan kept of 00000 is damaged" in ran.last


def test_what_is_no_run_is_said(tmp_path: Path, run: Run) -> None:
    ran = run("verify", tmp_path)
    assert ran.code == 2
    assert "is not a run of mmjax; name the --out of one" in ran.last
