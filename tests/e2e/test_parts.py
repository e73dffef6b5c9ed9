"""One scan on several hosts: parts without a word to one another, then one that decides."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import SHARDS, Run, World, check_same_scan, encoded_by_parts, verdicts

pytestmark = pytest.mark.e2e


def scan(world: World, out: Path, *more: str) -> list[str]:
    return ["scan", str(world.shards), *world.flags, f"--out={out}", "--write_clean", *more]


def test_four_hosts_begin_one_is_lost_and_two_finish(
    world: World, scanned: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "run"
    for number in (3, 0):
        ran = run(*scan(world, out, f"--part={number}/4"))
        assert ran.code == 0, ran.err
    assert f"of all shards 3 of {SHARDS} are stored" in ran.out
    assert not (out / "summary.json").exists()
    # host 1 was killed while it wrote; host 2 never came
    (out / "pairs" / "00001.parquet.tmp-1").write_bytes(b"half")
    for number in (0, 1):
        ran = run(*scan(world, out, f"--part={number}/2"))
        assert ran.code == 0, ran.err
    assert f"of all shards {SHARDS} of {SHARDS} are stored" in ran.out
    assert encoded_by_parts(out) == [f"{i:05d}" for i in range(SHARDS)], "each shard once"
    ran = run(*scan(world, out))
    assert ran.code == 0, ran.err
    check_same_scan(out, scanned)


def test_the_last_call_encodes_what_a_lost_host_left(
    world: World, scanned: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "run"
    assert run(*scan(world, out, "--part=1/2")).code == 0
    assert run(*scan(world, out)).code == 0
    assert verdicts(out).equals(verdicts(scanned))


def test_hosts_must_agree(world: World, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "run"
    assert run(*scan(world, out, "--part=0/2")).code == 0
    ran = run(*scan(world, out, "--part=1/2", "--fdr=0.2"))
    assert ran.code == 2
    assert "config.stages.fdr was 0.1, is now 0.2" in ran.last
    known = json.loads((out / "run.json").read_text())
    known["versions"]["jax"] = "0.0.1"
    (out / "run.json").write_text(json.dumps(known))
    ran = run(*scan(world, out, "--part=1/2"))
    assert ran.code == 2
    assert "versions.jax was '0.0.1'" in ran.last
    assert run(*scan(world, tmp_path / "run2", "--part=0/2")).code == 0
    seen = tmp_path / "run2" / "parts" / "shards.json"
    seen.write_text(json.dumps(json.loads(seen.read_text())[:-1]))
    ran = run(*scan(world, tmp_path / "run2", "--part=1/2"))
    assert ran.code == 2
    assert f"this host sees {SHARDS} shards, the first one saw {SHARDS - 1} (00004)" in ran.last


@pytest.mark.parametrize("part", ["2/2", "x", "1", "-1/2", "0/0"])
def test_a_part_is_i_of_n(part: str, world: World, tmp_path: Path, run: Run) -> None:
    ran = run(*scan(world, tmp_path / "run", f"--part={part}"))
    assert ran.code == 2
    assert f"--part wants I/N with I from 0 to N-1, as 0/8, got '{part}'" in ran.last


def test_a_part_never_empties_the_folder(world: World, tmp_path: Path, run: Run) -> None:
    ran = run(*scan(world, tmp_path / "run", "--part=0/2", "--overwrite"))
    assert ran.code == 2
    assert "--part and --overwrite exclude each other" in ran.last
