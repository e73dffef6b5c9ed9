"""The run folder: lock, resume, refusal, journal."""

import dataclasses
import json
import threading
from functools import partial
from pathlib import Path

import pytest

from mmjax.core import rundir
from mmjax.core.config import option
from mmjax.core.errors import RunError
from mmjax.core.files import write_bytes


@dataclasses.dataclass(frozen=True)
class Config:
    size: int = option(1, "a size")


def test_resume_and_refusal(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with rundir.RunDir.open(out, verb="scan", config=Config(1)) as run:
        assert not run.resumed
        assert run.run["versions"]["mmjax"] != "absent"
    with rundir.RunDir.open(out, verb="scan", config=Config(1)) as run:
        assert run.resumed
    with pytest.raises(RunError, match=r"config.size was 1, is now 2.*choose another --out$"):
        rundir.RunDir.open(out, verb="scan", config=Config(2))
    with pytest.raises(RunError, match=r"config.size was 1, is now 2.*or add --overwrite$"):
        rundir.RunDir.open(out, verb="scan", config=Config(2), overwrite=False)
    with pytest.raises(RunError, match="facts.weights was None"):
        rundir.RunDir.open(out, verb="scan", config=Config(1), facts={"weights": "abc"})
    (out / "verdicts").mkdir()
    with rundir.RunDir.open(out, verb="scan", config=Config(2), overwrite=True) as run:
        assert not run.resumed
        assert not (out / "verdicts").exists()


def test_a_folder_in_which_nothing_was_done_is_free_for_another_run(tmp_path: Path) -> None:
    with rundir.RunDir.open(tmp_path, verb="scan", config=Config(1)) as run:
        (tmp_path / "tokenizer.json").write_text("{}")
        run.disown()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    with rundir.RunDir.open(tmp_path, verb="train", config=Config(2)) as run:
        assert not run.resumed
    with rundir.RunDir.open(tmp_path, verb="train", config=Config(2)) as run:
        run.disown()  # it was there before
    with pytest.raises(RunError, match="config.size was 2"):
        rundir.RunDir.open(tmp_path, verb="train", config=Config(1))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(RunError, match="is not a run of mmjax"):
        rundir.RunDir.open(tmp_path, verb="scan", config=Config(), overwrite=True)
    assert (tmp_path / "photo.jpg").read_bytes() == b"x"


def test_killed_before_it_had_begun(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "run.json.tmp-1").write_bytes(b"{")
    with rundir.RunDir.open(tmp_path, verb="scan", config=Config()) as run:
        assert not run.resumed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock", "log.jsonl", "run.json"]


def test_what_merely_looks_like_a_leftover_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tmp-1").write_bytes(b"x")
    with pytest.raises(RunError, match="is not a run of mmjax"):
        rundir.RunDir.open(tmp_path, verb="scan", config=Config())
    assert (tmp_path / "thesis.tmp-1").read_bytes() == b"x"


def test_an_interrupted_overwrite_can_be_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    rundir.RunDir.open(tmp_path, verb="scan", config=Config(1)).close()
    for name in ("a", "z"):
        (tmp_path / name).mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(rundir.shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rundir.RunDir.open(tmp_path, verb="scan", config=Config(2), overwrite=True)
    with rundir.RunDir.open(tmp_path, verb="scan", config=Config(2), overwrite=True) as run:
        assert run.run["config"] == {"size": 2}
    assert not (tmp_path / "a").exists()


def test_other_versions_go_on_and_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rundir.RunDir.open(tmp_path, verb="scan", config=Config()).close()
    rundir.RunDir.open(tmp_path, verb="scan", config=Config()).close()
    assert capsys.readouterr().err == ""
    known = json.loads((tmp_path / "run.json").read_text())
    now, known["versions"]["jax"] = known["versions"]["jax"], "0.0.1"
    (tmp_path / "run.json").write_text(json.dumps(known))
    rundir.RunDir.open(tmp_path, verb="scan", config=Config()).close()
    said = f"mmjax: {tmp_path}: versions.jax was 0.0.1, is now {now}; what was done before is kept"
    assert capsys.readouterr().err.splitlines() == [said]


def test_two_runs_on_one_folder(tmp_path: Path) -> None:
    with (
        rundir.RunDir.open(tmp_path / "r", verb="scan", config=Config()),
        pytest.raises(RunError, match="in use by another"),
    ):
        rundir.RunDir.open(tmp_path / "r", verb="scan", config=Config())
    rundir.RunDir.open(tmp_path / "r", verb="scan", config=Config()).close()


def test_readers_share_a_folder_and_no_process_works_in_it_meanwhile(tmp_path: Path) -> None:
    opened = partial(rundir.RunDir.open, tmp_path, verb="scan", config=Config())
    with opened(), pytest.raises(RunError, match="in use by another mmjax process"):
        rundir.RunDir.read(tmp_path)
    (tmp_path / "x.bin.tmp-7").write_bytes(b"half")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with rundir.RunDir.read(tmp_path) as one, rundir.RunDir.read(tmp_path) as two:
        one.log("nothing")
        two.finish("0", {})
        with pytest.raises(RunError, match="in use by another mmjax process"):
            opened()
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    opened().close()
    with opened(part="0-of-2"), pytest.raises(RunError, match="in use by another mmjax process"):
        rundir.RunDir.read(tmp_path)
    rundir.RunDir.read(tmp_path).close()
    (tmp_path / "lock").unlink()
    with pytest.raises(RunError, match="cannot be read as a run of mmjax"):
        rundir.RunDir.read(tmp_path)


def test_journal_notices_changed_and_missing_outputs(tmp_path: Path) -> None:
    with rundir.RunDir.open(tmp_path / "r", verb="scan", config=Config()) as run:
        output = run.path / "x.bin"
        assert run.finished("0") is None
        write_bytes(output, b"abc")
        run.finish("0", {"x": output}, rows=3)
        entry = run.finished("0")
        assert entry is not None
        assert entry["rows"] == 3
        output.write_bytes(b"abd")
        assert run.finished("0") is None
        output.unlink()
        assert run.finished("0") is None


def test_parts_work_at_the_same_time_and_a_whole_run_waits(tmp_path: Path) -> None:
    opened = partial(rundir.RunDir.open, tmp_path, verb="scan", config=Config())
    with opened(part="0-of-2") as first, opened(part="1-of-2") as second:
        assert not first.resumed
        assert second.resumed
        second.log("shard")
        with pytest.raises(RunError, match="part 1-of-2 of .* is in use"):
            opened(part="1-of-2")
        with pytest.raises(RunError, match="in use by another mmjax process"):
            opened()
    assert (tmp_path / "parts" / "1-of-2.jsonl").read_text().count("shard") == 1
    assert not (tmp_path / "log.jsonl").exists()
    with opened() as whole:
        assert whole.resumed
        with pytest.raises(RunError, match="in use by another mmjax process"):
            opened(part="0-of-2")


def test_parts_are_alone_one_after_the_other(tmp_path: Path) -> None:
    opened = partial(rundir.RunDir.open, tmp_path, verb="scan", config=Config())
    entered = threading.Event()
    with opened(part="0-of-2") as first, opened(part="1-of-2") as second:

        def enter() -> None:
            with second.alone():
                entered.set()

        with first.alone():
            other = threading.Thread(target=enter)
            other.start()
            assert not entered.wait(0.2)
        other.join(10)
        assert entered.is_set()


def test_a_part_leaves_what_others_are_writing(tmp_path: Path) -> None:
    with rundir.RunDir.open(tmp_path, verb="scan", config=Config(), part="0-of-2"):
        half = tmp_path / "a.npy.tmp-7"
        half.write_bytes(b"half")
    with rundir.RunDir.open(tmp_path, verb="scan", config=Config(), part="1-of-2"):
        assert half.exists()
    with rundir.RunDir.open(tmp_path, verb="scan", config=Config()):
        assert not half.exists()
