"""The verbs beside `scan`: rescore, fit-mapping, attack, pack, doctor."""

import json
import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmjax.data.pack import SKIPPED_SCHEMA
from mmjax.scan import inputs
from tests.e2e.conftest import (
    FLOAT32,
    ROWS,
    SHARDS,
    Run,
    World,
    check_accounts,
    embeddings,
    hashes,
    run_process,
    verdicts,
)

PAIRS = SHARDS * ROWS


def _never(*_: object, **__: object) -> None:
    raise AssertionError("rescore encodes nothing")


def test_rescore_decides_again_from_what_is_stored(
    world: World, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, first = tmp_path / "shards", tmp_path / "first"
    shutil.copytree(world.shards, shards)
    stages = ["--config.stages.seeds=11", "--config.stages.gamma=0.7"]
    assert run("scan", shards, *world.flags, *stages, f"--out={first}").code == 0
    before = hashes(first)
    shutil.rmtree(shards)
    monkeypatch.setattr(inputs, "encode_views", _never)
    paper = ["--config.mode=paper", "--gamma_z=0.9", "--seeds=9"]
    ran = run("rescore", first, *paper, f"--out={tmp_path / 'second'}", "--json")
    assert ran.code == 0
    summary = json.loads(ran.out)
    table = check_accounts(tmp_path / "second", summary, PAIRS)
    assert sum(table["is_poisoned"].to_pylist()) >= 9
    assert summary["found"]["seeds"] == 9
    assert table["consistency"].equals(verdicts(first)["consistency"])
    assert hashes(first) == before
    again = run("rescore", first, "--gamma=0.8")
    assert again.code == 0
    assert hashes(first, without=("rescored",)).keys() > before.keys()
    (folder,) = first.glob("rescored-*")
    assert again.out.splitlines()[-1] == f"report: {folder / 'report' / 'index.html'}"
    kept = json.loads((folder / "run.json").read_text())["config"]
    assert (kept["seeds"], kept["gamma"]) == (11, 0.8), "what is not said stays as it was"
    assert {name: value for name, value in hashes(first).items() if name in before} == before


@pytest.mark.slow
def test_rescore_of_embeddings_wants_them_where_they_were(tmp_path: Path, run: Run) -> None:
    folder, first = embeddings(tmp_path / "in", 300, seed=1), tmp_path / "first"
    reference = embeddings(tmp_path / "reference", 300, seed=2)
    flags = [f"--reference={reference}", "--config.fit.kind=ridge"]
    assert run("scan", folder, *flags, f"--out={first}").code == 0
    shutil.rmtree(reference)
    assert run("rescore", first, "--seeds=20", f"--out={tmp_path / 'second'}").code == 0
    shutil.rmtree(folder)
    ran = run("rescore", first, "--seeds=21", f"--out={tmp_path / 'third'}")
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    assert "they are gone: no such file or folder" in ran.err
    (first / "summary.json").unlink()
    ran = run("rescore", first)
    assert ran.code == 2
    assert "is not finished; its own command goes on with it" in ran.err


def test_a_mapping_is_fitted_once_and_kept(world: World, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "run"
    flags = [f"--weights={world.weights}", f"--reference={world.reference}", FLOAT32]
    scan = ["scan", world.shards, *flags, "--config.fit.kind=ridge", f"--out={out}"]
    assert run(*scan).code == 0
    assert (out / "reference" / "embeddings" / "00000.image.npy").is_file()
    kept = hashes(out / "mapping")
    assert kept["model.safetensors"] == hashes(world.mapping)["model.safetensors"]
    assert run(*scan).code == 0
    log = [json.loads(line)["event"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert log.count("mapping") == 1
    assert hashes(out / "mapping") == kept


def test_the_command_of_a_run_makes_that_run(scanned: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "run"
    shutil.copytree(scanned, out)
    command = json.loads((out / "run.json").read_text())["command"]
    assert command[:2] == ["mmjax", "scan"]
    assert command[-1] == f"--out={scanned}"
    assert run(*command[1:-1], f"--out={out}").code == 0


def test_attack_writes_a_set_with_its_truth(world: World, tmp_path: Path, run: Run) -> None:
    attack = ["attack", world.shards, "--rate=0.03", "--config.image_size=32"]
    ran = run(*attack, f"--out={tmp_path / 'a'}", "--target=boat")
    assert ran.code == 0
    assert ran.out.startswith(f"poisoned 6 of {PAIRS} pairs\n")
    assert "never train a model for use on it" in ran.out
    labels = pq.read_table(tmp_path / "a" / "poison_labels.parquet")
    assert sum(labels["is_poisoned"].to_pylist()) == 6
    assert labels.num_rows == PAIRS
    assert run(*attack, f"--out={tmp_path / 'b'}", "--target=boat").code == 0
    unequal = ("run.json", "log.jsonl", "lock")
    assert hashes(tmp_path / "a", without=unequal) == hashes(tmp_path / "b", without=unequal)
    ran = run(*attack, f"--out={tmp_path / 'a'}", "--target=boat", "--seed=1")
    assert ran.code == 2
    assert "config.seed was 0, is now 1" in ran.err
    ran = run("attack", tmp_path / "a", f"--out={tmp_path / 'c'}")
    assert ran.code == 2
    assert "is marked as poisoned already" in ran.err


def test_pack_makes_shards_of_a_table(world: World, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    with tarfile.open(world.shards / "00000.tar") as tar:
        tar.extractall(folder, filter="data")
    names = sorted(file.name for file in folder.glob("*.png"))
    rows = [f"{name}\ta caption of {name}\n" for name in names]
    (folder / "pairs.tsv").write_text("filepath\ttitle\n" + "".join(rows) + "gone.png\tnone\n")
    out = tmp_path / "out"
    pack = ["pack", folder / "pairs.tsv", f"--out={out}", "--shard-size=30"]
    ran = run(*pack)
    assert ran.code == 0
    assert ran.out.splitlines() == [
        f"packed {ROWS} pairs into 2 shards in {out}",
        "skipped 1 x missing_image: a caption without an image",
    ]
    before = hashes(out)
    (out / "00001.tar").unlink()
    assert run(*pack).code == 0
    assert hashes(out) == before, "it goes on where it stopped"
    assert sorted(file.name for file in out.glob("*.tar")) == ["00000.tar", "00001.tar"]
    skipped = pq.read_table(out / "skipped.parquet", schema=SKIPPED_SCHEMA)
    assert skipped["status"].to_pylist() == ["missing_image"]
    ran = run("scan", out, *world.flags, f"--out={tmp_path / 'run'}", "--json")
    assert ran.code == 0
    check_accounts(tmp_path / "run", json.loads(ran.out), ROWS)


@pytest.mark.e2e
def test_doctor_says_what_is_there(world: World, tmp_path: Path, run: Run) -> None:
    ran = run_process("doctor", f"--weights={world.weights}", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "e2e, 16-d, sha256 " in ran.out
    assert "tokenizer of 600 entries" in ran.out
    assert "ok  programs     kept in " in ran.out
    assert ran.out.splitlines()[-1] == "everything that was looked at is fine"
    assert not list(tmp_path.iterdir())
    ran = run("doctor", f"--weights=hf-dir:{tmp_path}")
    assert ran.code == 2
    assert "!!  weights      no config.json in" in ran.out
    assert ran.out.splitlines()[-1] == "1 problem(s), marked !!"
