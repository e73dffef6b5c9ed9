"""F37-F46: what can happen to a run, and to the machine that it runs on."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from mmjax.core.checkpoint import open_checkpoints
from tests.conftest import ROOT
from tests.data.faults import write_tar
from tests.e2e.conftest import SECONDS, command, environment, hashes, verdicts
from tests.faults.case import GOOD, Case, fault, good

SHARDS = 4


def _shards(case: Case) -> Path:
    """Four shards of good pairs."""
    each = GOOD // SHARDS
    for number in range(SHARDS):
        write_tar(case.inputs / f"{number:05d}.tar", good(each, first=100 + each * number))
    return case.inputs


def _whole(case: Case) -> Path:
    """The run that nothing happened to."""
    out = case.out / "whole"
    assert case.run("scan", case.inputs, *case.world.flags, f"--out={out}").code == 0
    return out


def _signalled(case: Case, number: int, out: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.signalled", str(number), "2", "scan", str(case.inputs),
         *case.world.flags, f"--out={out}"],
        capture_output=True,
        env=environment(case.devices),
        cwd=ROOT,
        timeout=SECONDS,
        check=False,
    )  # fmt: skip
    return done.returncode


def _resumes(case: Case, number: int, code: int) -> None:
    _shards(case)
    out = case.out / "run"
    assert _signalled(case, number, out) == code
    assert case.run("scan", case.inputs, *case.world.flags, f"--out={out}").code == 0
    assert verdicts(out).equals(verdicts(_whole(case)))
    assert not list(out.rglob("*.tmp-*"))


@fault(
    "F37", "SIGTERM or SIGINT in the middle", "exit 42 or 130; the same command resumes", slow=True
)
def told_to_stop(case: Case) -> None:
    _resumes(case, signal.SIGTERM, 42)
    shutil.rmtree(case.out)
    _resumes(case, signal.SIGINT, 130)


@fault("F38", "SIGKILL, power loss", "the same command resumes to the same bytes", slow=True)
def killed(case: Case) -> None:
    _resumes(case, signal.SIGKILL, -signal.SIGKILL)


@fault(
    "F39",
    "a full disk",
    "exit 2, one line; what was finished stays, the same command resumes",
    slow=True,
)
def full_disk(case: Case) -> None:
    _shards(case)
    out = case.out / "run"
    arguments = ["scan", case.inputs, *case.world.flags, f"--out={out}"]
    # a file can be no larger than this, which is how a full disk looks from within
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.RLIM_INFINITY)); "
        "from mmjax.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    env = environment(case.devices) | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=env,
        cwd=ROOT,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot write" in done.stderr.splitlines()[-1]
    assert case.run(*arguments).code == 0
    assert verdicts(out).equals(verdicts(_whole(case)))


@fault(
    "F40",
    "an --out that is a file, of something else, of another run, or inside the input",
    "exit 2 with what to do, nothing of it is touched; a run folder among shards is no shard",
    slow=True,
)
def run_folders(case: Case) -> None:
    _shards(case)
    before = hashes(case.inputs)
    scan = ["scan", case.inputs, *case.world.flags]
    inside = case.inputs / "run"
    for _ in range(2):  # the second call finds the first one's folder among the shards
        assert case.run(*scan, f"--out={inside}").code == 0
        assert verdicts(inside).num_rows == GOOD
    shutil.rmtree(inside)
    assert hashes(case.inputs) == before
    out = case.out / "run"
    assert case.run(*scan, f"--out={out}").code == 0
    case.refuse(*scan, "--fdr=0.3", f"--out={out}", says="choose another --out or add --overwrite")
    foreign = case.out / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    case.refuse(*scan, "--overwrite", f"--out={foreign}", says="is not a run of mmjax")
    assert (foreign / "thesis.tex").read_text() == "years of work"
    (case.out / "file").write_text("")
    case.refuse(*scan, f"--out={case.out / 'file'}", says="choose another --out")


@fault(
    "F41",
    "a damaged checkpoint",
    "the one before it is used, and it is said; none: exit 2",
    slow=True,
)
def damaged_checkpoint(case: Case) -> None:
    given = ["train", "--config=train/demo", f"--weights={case.world.weights}"]
    sizes = ["--config.data.scenes=16", "--config.data.heldout_scenes=0", "--config.batch_size=8"]
    every = ["--config.checkpoint_every=1", "--config.log_every=1", f"--out={case.out}"]
    assert case.run(*given, *sizes, *every, "--steps=3").code == 0
    wanted = hashes(case.out / "model")
    for file in (case.out / "checkpoints" / "3").rglob("_METADATA"):
        file.write_bytes(file.read_bytes()[:40])
    shutil.rmtree(case.out / "model")
    ran = case.run(*given, *sizes, *every, "--steps=3")
    assert ran.code == 0, ran.err
    assert "the checkpoint of step 3 in" in ran.err
    assert hashes(case.out / "model") == wanted
    with open_checkpoints(case.out / "checkpoints") as checkpoints:
        assert checkpoints.latest() == 3
    for file in (case.out / "checkpoints").rglob("_METADATA"):
        file.write_bytes(file.read_bytes()[:40])
    ran = case.run(*given, *sizes, *every, "--steps=3")
    assert ran.code == 2
    assert "remove the folder to begin anew" in ran.last


@fault(
    "F42",
    "a host of several is lost",
    "the others' shards stay; whoever runs next encodes what is left (tests/e2e/test_train.py: a "
    "training restarts from its checkpoint)",
)
def lost_host(case: Case) -> None:
    _shards(case)
    out = case.out / "run"
    scan = ["scan", case.inputs, *case.world.flags, f"--out={out}"]
    assert case.run(*scan, "--part=0/2").code == 0
    ran = case.run(*scan)
    assert ran.code == 0
    encoded = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["name"] for line in encoded if line["event"] == "shard"] == ["00001", "00003"]
    assert verdicts(out).equals(verdicts(_whole(case)))


@fault(
    "F43",
    "hosts that see other shards, another configuration, other versions",
    "exit 2 on the host that differs, naming what differs",
)
def hosts_differ(case: Case) -> None:
    _shards(case)
    scan = ["scan", case.inputs, *case.world.flags, f"--out={case.out}"]
    assert case.run(*scan, "--part=0/2").code == 0
    case.refuse(*scan, "--fdr=0.3", "--part=1/2", says="config.stages.fdr was 0.1, is now 0.3")
    (case.inputs / "00003.tar").unlink()
    case.refuse(*scan, "--part=1/2", says="this host sees 3 shards, the first one saw 4 (00003)")


@fault(
    "F44",
    "half of what a run of several processes must know",
    "exit 2 with the flags that are missing; alone when nothing is said",
)
def half_a_cluster(case: Case) -> None:
    given = ["train", "--config=train/demo", f"--weights={case.world.weights}", f"--out={case.out}"]
    case.refuse(
        *given, "--coordinator=localhost:1", says="wants --processes=N and --process=0..N-1"
    )
    case.refuse(
        *given, "--coordinator=localhost:1", "--processes=2", "--process=2", says="got 2 and 2"
    )


@fault(
    "F45",
    "an input that changes between two calls",
    "the shard is encoded again; `verify` names it",
)
def changed_input(case: Case) -> None:
    _shards(case)
    out = case.out / "run"
    scan = ["scan", case.inputs, *case.world.flags, f"--out={out}"]
    assert case.run(*scan).code == 0
    os.utime(case.inputs / "00000.tar", (1, 1))  # a touch is no change
    assert case.run("verify", out).code == 0
    write_tar(case.inputs / "00002.tar", good(GOOD // SHARDS, first=900))
    ran = case.run("verify", out)
    assert ran.code == 2
    assert "input 00002: has changed since" in ran.out
    (out / "log.jsonl").unlink()
    assert case.run(*scan).code == 0
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["name"] for line in log if line["event"] == "shard"] == ["00002"]


@fault(
    "F46",
    "another locale, time zone, umask, hash seed; folders with spaces and letters of all scripts",
    "identical outputs",
    slow=True,
)
def surroundings(case: Case) -> None:
    _shards(case)
    whole = _whole(case)
    out = case.out / "läufe und mehr" / "ラン"
    changed = {"LANG": "C", "LC_ALL": "C", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7"}
    env = environment(case.devices) | changed
    with contextlib.ExitStack() as restored:
        restored.callback(os.umask, os.umask(0o077))
        done = subprocess.run(
            command(["scan", case.inputs, *case.world.flags, f"--out={out}"]),
            capture_output=True,
            text=True,
            env=env,
            timeout=SECONDS,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert hashes(out / "verdicts") == hashes(whole / "verdicts")
    assert hashes(out / "embeddings") == hashes(whole / "embeddings")
