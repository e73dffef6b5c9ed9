"""The command line: light and quick help, typed overrides, one-line errors, exit codes."""

import argparse
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.cli import main, settings
from mmjax.cli.verbs import VERBS
from mmjax.core.errors import ConfigError, ExitCode
from mmjax.scan.config import ScanConfig

HEAVY = ("jax", "flax", "sklearn", "transformers", "matplotlib", "pyarrow", "tensorflow_datasets")
PROBE = """
import sys
import time
from mmjax.cli import main
code = main(sys.argv[1:])
loaded = [m for m in {heavy!r} if m in sys.modules]
print("LOADED", loaded, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.e2e
@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_light_and_quick(verb: str) -> None:
    command = [sys.executable, "-c", PROBE.format(heavy=HEAVY), *filter(None, [verb]), "--help"]
    seconds = []
    for _ in range(2):
        # processor time: wall time on a shared machine says little
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0, done.stderr
        assert "LOADED []" in done.stderr
    assert "exit codes" in done.stdout
    assert min(seconds) < 0.3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scam"], "unknown verb 'scam'; did you mean scan?; verbs: demo, scan"),
        (["scan", "x", "--weight=demo"], "unrecognized arguments: --weight=demo; did you mean --w"),
        (["scan", "--config=scan/flikr8k"], "did you mean scan/flickr8k? known: scan/cc3m, scan"),
        (["scan", "x", "--nonsense=1"], "unrecognized arguments: --nonsense=1"),
        (["scan", "x", "--config=scan/nowhere"], "no configuration 'scan/nowhere'"),
        (["scan", "x", "--config.encode.batch_sise=3"], "did you mean config.encode.batch_size?"),
        (["scan", "x", "--batch-size=no"], "config.encode.batch_size wants int, got 'no'"),
        (["scan", "x", "--config.stages.gamma=2"], "config.stages.gamma wants at most"),
        (["scan", "x", "--config.stages=2"], "config.stages is a group"),
        (["scan"], "nothing to scan"),
        (["rescore", "x", "--gamma_z=maybe"], "config.gamma_z wants"),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_exit_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USER
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("mmjax: error: ")
    assert says in lines[0]


GATE = """
import sys, types
from mmjax.cli.flags import Verb
from mmjax.cli.main import VERBS, main
def found(config, flags):
    print("poison " * {words})
    return 1
sys.modules["gate"] = types.SimpleNamespace(found=found)
VERBS["gate"] = Verb("A gate that is shut.", "gate:found")
sys.exit(main(["gate"]))
"""


@pytest.mark.e2e
@pytest.mark.parametrize(("words", "codes"), [(1, {1}), (100_000, {128 + signal.SIGPIPE})])
def test_a_reader_that_has_gone_opens_no_gate(words: int, codes: set[int]) -> None:
    command = [sys.executable, "-c", GATE.format(words=words)]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in codes
    shut = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], check=False, stderr=-1)
    assert (shut.returncode, shut.stderr) == (1, b"")


def test_overrides_are_converted_by_the_type_of_their_field() -> None:
    plain, overrides = settings.split_overrides(
        ["in.tar", "--config.encode.batch_size=7", "--config.write_clean", "true", "--out=x"]
    )
    assert plain == ["in.tar", "--out=x"]
    made = settings.load(ScanConfig, "", overrides, {"inputs": ("in.tar",)})
    assert made.encode.batch_size == 7
    assert made.write_clean is True
    made = settings.load(
        ScanConfig,
        "",
        {"stages.mode": "paper", "stages.gamma_z": "0.25", "reference": "a,b"},
        {"inputs": ("in.tar",)},
    )
    assert made.stages.gamma_z == 0.25
    assert made.reference == ("a", "b")


def test_a_configuration_file_is_found_by_path_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import ml_collections\n"
        "def get_config():\n"
        "    return ml_collections.ConfigDict({'inputs': ('a',), 'stages': {'gamma': 0.8}})\n"
    )
    made = settings.load(ScanConfig, str(file), {"stages.gamma": "0.7"}, {})
    assert made.stages.gamma == 0.7
    assert settings.load(ScanConfig, str(file), {}, {}).stages.gamma == 0.8
    file.write_text("x = 1\n")
    with pytest.raises(ConfigError, match=r"has no get_config\(\)"):
        settings.load(ScanConfig, str(file), {}, {})


def too_large_for_the_host() -> None:
    np.zeros(2**56)


def too_large_for_a_device() -> None:
    jnp.zeros(10**15).block_until_ready()


@pytest.mark.parametrize("allocate", [too_large_for_the_host, too_large_for_a_device])
def test_out_of_memory_is_one_line_that_says_what_to_do(
    allocate: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mmjax.cli.scanning.verify", lambda config, flags: allocate())
    assert main(["verify", "run"]) == ExitCode.USER
    (line,) = capsys.readouterr().err.splitlines()
    assert "out of memory (" in line
    assert "lower --batch_size, or give it more devices or memory" in line
    main(["verify", "run", "--debug"])
    assert allocate.__name__ in capsys.readouterr().err  # the traceback of the cause


def test_what_is_our_fault_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(config: None, flags: argparse.Namespace) -> int:
        raise RuntimeError("a fault")

    monkeypatch.setattr("mmjax.cli.scanning.verify", fails)
    with pytest.raises(RuntimeError, match="a fault"):
        main(["verify", "run"])


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [(signal.SIGTERM, 42, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_during_a_callback_that_swallows_errors_is_not_lost(
    number: signal.Signals,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """JAX has such a callback: Python calls it whenever it collects garbage."""

    class Swallows:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def verb(config: None, flags: object) -> int:
        Swallows()
        time.sleep(30)
        return 0

    monkeypatch.setattr("mmjax.cli.scanning.verify", verb)
    # a shell's background processes ignore SIGINT
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["verify", "x"]) == code
    finally:
        signal.signal(signal.SIGINT, before)
    said = capsys.readouterr().err
    assert said == f"mmjax: {says}; the same command goes on from here\n"
