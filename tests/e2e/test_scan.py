"""Scans from end to end: what is found, what does not depend on how, and what is written where."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mmjax
from mmjax.cli import main
from mmjax.core.errors import ConfigError
from mmjax.scan.verdicts import SCORES, VERDICT_SCHEMA
from tests.e2e.conftest import (
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

RIDGE = "--config.fit.kind=ridge"
PAIRS, POISON = 1_500, 60


class Sets:
    """Embeddings: a clean reference, a set with planted poison, the same without."""

    def __init__(self, folder: Path):
        self.reference = embeddings(folder / "reference", 2000, seed=3)
        self.poisoned = embeddings(folder / "poisoned", PAIRS, seed=1, poison=POISON)
        self.clean = embeddings(folder / "clean", PAIRS, seed=2)
        captions = pq.read_table(self.poisoned / "metadata")["caption"].to_pylist()
        self.truth = np.array(["banana" in caption for caption in captions])


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    return Sets(tmp_path_factory.mktemp("embeddings"))


@pytest.fixture(scope="module")
def found(sets: Sets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of the planted set; nothing may write into it."""
    out = tmp_path_factory.mktemp("found") / "run"
    flags = [f"--reference={sets.reference}", RIDGE, f"--out={out}"]
    assert main(["scan", str(sets.poisoned), *flags]) == 0
    return out


def test_every_row_gets_one_verdict_with_scores(world: World, scanned: Path) -> None:
    summary = json.loads((scanned / "summary.json").read_text())
    table = check_accounts(scanned, summary, SHARDS * ROWS)
    assert table.schema.equals(VERDICT_SCHEMA)
    assert summary["counts"] == {"benign": SHARDS * ROWS}
    assert summary["verdict"] == "no evidence of poisoning"
    for name in SCORES:
        # a group is of poisoned pairs, and there are none
        assert table[name].null_count == (SHARDS * ROWS if name == "group" else 0), name
    assert table["shard"].to_pylist() == [f"{i:05d}" for i in range(SHARDS) for _ in range(ROWS)]
    for name in ("sim_original", "sim_generated", "consistency", "poison_score"):
        values = np.array(table[name].to_pylist())
        assert (values >= 0).all()
        assert (values <= 1).all()
    assert len(np.unique(table["consistency"].to_pylist())) > 150


class Cut(NamedTuple):
    """Thresholds of paper mode that no score is near, and what they say of the world's shards."""

    flags: list[str]
    table: pa.Table


@pytest.fixture(scope="module")
def cut(scanned: Path, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    folder = tmp_path_factory.mktemp("cut")
    c = np.sort(verdicts(scanned)["consistency"].to_numpy())[::-1]
    seeds = 6 + int(np.argmax(-np.diff(c)[5:10]))
    flags = ["--config.mode=paper", f"--seeds={seeds}"]
    assert main(["rescore", str(scanned), *flags, "--gamma_z=0", f"--out={folder / 'z'}"]) == 0
    z = np.sort(verdicts(folder / "z")["text_correlation"].to_numpy())[40:160]
    widest = int(np.argmax(np.diff(z)))
    gamma_z = f"{z[widest : widest + 2].mean():.6f}"
    out = folder / "cut"
    assert main(["rescore", str(scanned), *flags, f"--gamma_z={gamma_z}", f"--out={out}"]) == 0
    stages = ["mode=paper", f"seeds={seeds}", f"gamma_z={gamma_z}"]
    return Cut([f"--config.stages.{stage}" for stage in stages], verdicts(out))


@pytest.mark.parametrize(
    ("flags", "devices"),
    [
        pytest.param(["--batch_size=1", "--workers=1"], 1, marks=pytest.mark.slow),
        pytest.param(
            ["--batch_size=7", "--workers=3", "--config.encode.text_batch_size=5"],
            1,
            marks=pytest.mark.slow,
        ),
        pytest.param(["--batch_size=64", "--workers=3"], 2, marks=pytest.mark.slow),
        (["--batch_size=7", "--workers=1", "--config.encode.decoder=pillow"], 4),
    ],
)
def test_batches_workers_and_devices_do_not_matter(
    flags: list[str], devices: int, world: World, cut: Cut, tmp_path: Path, run: Run
) -> None:
    mesh, out = f"--config.mesh.data={devices}", tmp_path / "run"
    assert (
        run("scan", world.shards, *world.flags, *cut.flags, *flags, mesh, f"--out={out}").code == 0
    )
    assert 40 <= sum(cut.table["is_poisoned"].to_pylist()) <= 160
    same_verdicts(verdicts(out), cut.table, tolerance=1e-3)


def test_bfloat16_says_nearly_the_same(
    world: World, scanned: Path, cut: Cut, tmp_path: Path, run: Run
) -> None:
    # it comes after the flags of the world and wins; the tolerance is that of bfloat16 operands
    flags = [*world.flags, *cut.flags, "--config.encode.precision=bfloat16"]
    assert run("scan", world.shards, *flags, f"--out={tmp_path / 'run'}").code == 0
    stored = Path("embeddings", "00000.image.npy")
    rounded = (tmp_path / "run" / stored).read_bytes()
    assert rounded != (scanned / stored).read_bytes(), "the precision is not heeded"
    table = verdicts(tmp_path / "run")
    for name in ("sim_original", "sim_generated"):
        np.testing.assert_allclose(table[name], cut.table[name], rtol=0, atol=2e-2, err_msg=name)


def same_verdicts(table: pa.Table, wanted: pa.Table, *, tolerance: float) -> None:
    """Equal but for the last digits of the scores."""
    for name in ("ordinal", "key", "caption", "status", "flags", "is_poisoned", "verdict"):
        assert table[name].to_pylist() == wanted[name].to_pylist(), name
    for name in ("sim_original", "sim_generated", "consistency"):
        # float16 embeddings: 1e-3
        np.testing.assert_allclose(table[name], wanted[name], rtol=0, atol=tolerance, err_msg=name)


def test_planted_poison_is_found_and_fails_the_gate(
    sets: Sets, found: Path, tmp_path: Path, run: Run
) -> None:
    summary = json.loads((found / "summary.json").read_text())
    table = check_accounts(found, summary, PAIRS)
    flagged = np.array(table["is_poisoned"].to_pylist())
    assert (flagged & sets.truth).sum() >= 0.95 * POISON
    assert (flagged & ~sets.truth).sum() <= 0.005 * PAIRS
    assert summary["evidence"] is True
    scores = np.array(table["poison_score"].to_pylist())
    assert ((scores > 0.5) == flagged).all()
    flags = [f"--reference={sets.reference}", RIDGE]
    ran = run("scan", sets.poisoned, *flags, f"--out={found}", "--fail_on=poisoned:1")
    assert ran.code == 1
    assert ran.out.splitlines()[0] == f"{flagged.sum()} of {PAIRS:,} pairs look poisoned"
    again = ["scan", sets.poisoned, *flags, f"--out={found}", f"--fail_on=poisoned:{POISON * 2}"]
    assert run(*again).code == 0
    ran = run("scan", sets.clean, *flags, f"--out={tmp_path / 'clean'}", "--fail_on=poisoned")
    assert ran.code == 0
    assert ran.out.startswith(f"no evidence of poisoning\n{PAIRS:,} pairs: {PAIRS:,} benign\n")


@pytest.mark.slow
def test_embeddings_of_any_norm_and_kind_say_the_same(
    sets: Sets, found: Path, tmp_path: Path, run: Run
) -> None:
    flags = [f"--reference={sets.reference}", RIDGE]
    for name, kind, scale in (("f32", np.float32, 7.5), ("f64", np.float64, 0.01)):
        folder = tmp_path / name
        shutil.copytree(sets.poisoned, folder)
        for file in folder.glob("*_emb/*.npy"):
            rows = np.load(file).astype(kind)
            np.save(file, rows * scale * np.linspace(1, 2, len(rows), dtype=kind)[:, None])
        before = hashes(folder)
        ran = run("scan", folder, *flags, f"--out={tmp_path / f'{name}-run'}")
        assert ran.code == 0
        assert hashes(folder) == before
        same_verdicts(verdicts(tmp_path / f"{name}-run"), verdicts(found), tolerance=1e-5)


@pytest.mark.slow
def test_regression_reads_embeddings_too(sets: Sets, tmp_path: Path, run: Run) -> None:
    quick = ["--config.fit.kind=regression", "--config.fit.epochs=2", "--config.fit.width=32"]
    ran = run(
        *["scan", sets.clean, f"--reference={sets.reference}", *quick],
        *[f"--out={tmp_path / 'run'}", "--json"],
    )
    assert ran.code == 0
    assert json.loads(ran.out)["mapping"]["kind"] == "regression"


@pytest.mark.slow
def test_embeddings_that_are_no_numbers_are_rows_with_a_status(
    sets: Sets, tmp_path: Path, run: Run
) -> None:
    folder = embeddings(tmp_path / "in", 1000, seed=4)
    file = folder / "img_emb" / "img_emb_0.npy"
    rows = np.load(file)
    rows[3, 5], rows[9, 0], rows[12] = np.nan, -np.inf, 0
    np.save(file, rows)
    metadata = folder / "metadata" / "metadata_1.parquet"
    table = pq.read_table(metadata)
    captions = [None, "  ", *table["caption"].to_pylist()[2:]]
    pq.write_table(table.set_column(1, "caption", pa.array(captions, pa.string())), metadata)
    flags = [f"--reference={sets.reference}", RIDGE, "--json"]
    ran = run("scan", folder, *flags, f"--out={tmp_path / 'run'}")
    assert ran.code == 0
    summary = json.loads(ran.out)
    assert summary["statuses"] == {"missing_caption": 2, "nonfinite_embedding": 3, "ok": 995}
    found = check_accounts(tmp_path / "run", summary, 1000)
    bad = [i for i, s in enumerate(found["status"].to_pylist()) if s != "ok"]
    assert bad == [3, 9, 12, 500, 501]


def test_the_clean_set_is_what_was_kept_byte_for_byte(
    world: World, scanned: Path, tmp_path: Path, run: Run
) -> None:
    """Of a paper scan, which drops its seeds whatever they are."""
    out = tmp_path / "run"
    paper = ["--config.stages.mode=paper", "--config.stages.gamma_z=0.9", "--config.stages.seeds=9"]
    ran = run("scan", world.shards, *world.flags, *paper, f"--out={out}", "--write_clean")
    assert ran.code == 0
    dropped = pq.read_table(out / "drop.parquet")
    assert 9 <= dropped.num_rows < 100
    gone = {(row["shard"], row["key"]) for row in dropped.to_pylist()}
    for shard in sorted(world.shards.glob("*.tar")):
        wanted = [m for m in members(shard) if (shard.stem, m[0].partition(".")[0]) not in gone]
        assert members(out / "clean" / shard.name) == wanted
    kept = SHARDS * ROWS - dropped.num_rows
    sizes = json.loads((out / "clean" / "sizes.json").read_text())
    assert sum(sizes.values()) == kept
    assert (scanned / "clean" / "00000.tar").read_bytes() == (
        world.shards / "00000.tar"
    ).read_bytes()
    ran = run("scan", out / "clean", *world.flags, f"--out={tmp_path / 'again'}", "--json")
    assert ran.code == 0
    check_accounts(tmp_path / "again", json.loads(ran.out), kept)
    learned = ["train", f"--data={out / 'clean'}", "--steps=2"]
    ran = run(*learned, f"--weights={world.weights}", f"--out={tmp_path / 'model'}")
    assert ran.code == 0
    assert json.loads((tmp_path / "model" / "summary.json").read_text())["captions"] == kept


def members(tar: Path) -> list[tuple[str, str]]:
    with tarfile.open(tar) as opened:
        return [
            (info.name, hashlib.sha256(file.read()).hexdigest())
            for info in opened
            if (file := opened.extractfile(info))
        ]


def test_the_marks_of_a_poisoned_set_are_not_read(world: World, tmp_path: Path, run: Run) -> None:
    poisoned, blind = tmp_path / "poisoned", tmp_path / "blind"
    attack = ["attack", world.shards, "--rate=0.05", "--config.image_size=32"]
    assert run(*attack, f"--out={poisoned}").code == 0
    blind.mkdir()
    for shard in poisoned.glob("*.tar"):
        shutil.copyfile(shard, blind / shard.name.replace("-POISONED", ""))
    paper = ["--config.stages.mode=paper", "--config.stages.gamma_z=0.6"]
    tables = []
    for folder, truth in ((poisoned, [f"--truth={poisoned}"]), (blind, [])):
        out = tmp_path / f"{folder.name}-run"
        ran = run("scan", folder, *world.flags, *paper, *truth, f"--out={out}")
        assert ran.code == 0
        assert ("against the truth: TPR" in ran.out) == bool(truth)
        tables.append(verdicts(out).drop_columns(["shard"]))
    assert tables[0].equals(tables[1])
    assert 0 < sum(tables[0]["is_poisoned"].to_pylist()) < SHARDS * ROWS
    named = run("scan", blind, *world.flags, *paper, f"--truth={poisoned}", f"--out={out}")
    assert "against the truth: TPR" in named.out


@pytest.mark.slow
def test_nothing_is_written_outside_the_run_folder(world: World, tmp_path: Path) -> None:
    here, before = tmp_path / "here", hashes(world.folder)
    here.mkdir()
    flags = ["--truth=labels", "--json"]
    pq.write_table(_labels(), here / "labels")
    ran = run_process("scan", world.shards, *world.flags, *flags, "--out=deep/run", cwd=here)
    assert ran.code == 0, ran.err
    assert ran.err == ""
    assert json.loads(ran.out)["truth"]["poisoned"] == 5
    assert sorted(p.name for p in here.iterdir()) == ["deep", "labels"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here"]
    assert hashes(world.folder) == before
    assert not list(here.rglob("*.tmp-*"))


def _labels() -> pa.Table:
    rows = [(f"{s:05d}", i, i == 0) for s in range(SHARDS) for i in range(ROWS)]
    names = ("shard", "ordinal", "is_poisoned")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def test_python_does_what_the_command_does(world: World, scanned: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = mmjax.scan(
        world.shards,
        out=out,
        weights=world.weights,
        mapping=str(world.mapping),
        encode={"precision": "float32"},
    )
    assert result.verdicts.equals(verdicts(scanned))
    assert result.summary == json.loads((scanned / "summary.json").read_text())
    assert result.report_path.read_text().startswith("<!doctype html>")
    assert result.lines()[-1] == f"report: {result.report_path}"
    with pytest.raises(ConfigError, match="unknown key config.wieghts; did you mean"):
        mmjax.scan(world.shards, out=out, wieghts=world.weights)
