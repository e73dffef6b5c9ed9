"""Compiled programs are kept, where they may be and apart for each kind of CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmjax.cli import main
from mmjax.core.programs import cache_folder, keep_programs

VARIABLES = ("JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that nothing is in, and an environment that says nothing of it."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def kept_for(cpuinfo: Path) -> str:
    """The folder that is chosen on such a machine."""
    keep_programs(cpuinfo)
    return os.environ.pop(VARIABLES[0])


def test_processors_that_can_do_other_things_have_other_folders(home: Path) -> None:
    old, new = home / "old", home / "new"
    old.write_text("processor : 0\nflags : fpu avx2\nbogomips : 4000\n")
    new.write_text("processor : 0\nflags : fpu avx2 amx_bf16\nbogomips : 4000\n")
    first = kept_for(old)
    old.write_text("processor : 0\nflags : fpu avx2\nbogomips : 4001\n")
    assert kept_for(old) == first != kept_for(new)
    assert Path(first).parent == cache_folder("programs") == home / "cache/mmjax/programs"
    assert int(os.environ[VARIABLES[1]]) == 2**31


def test_what_the_environment_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES[0], "/elsewhere")
    keep_programs()
    assert os.environ[VARIABLES[0]] == "/elsewhere"
    assert VARIABLES[1] not in os.environ


def test_nothing_is_kept_where_nothing_can_be_written(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "cache").write_text("a file, where the folder would be")
    keep_programs()
    assert VARIABLES[0] not in os.environ
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.chdir(home)
    keep_programs()
    assert VARIABLES[0] not in os.environ
    assert not (home / "not").exists()


def test_a_second_process_finds_what_the_first_compiled(home: Path) -> None:
    code = """if True:
        from mmjax.core.programs import keep_programs
        keep_programs()
        import jax
        found = []
        jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
        jax.jit(lambda x: x * 2 + 1)(3.0)
        print(sum(name == "/jax/compilation_cache/cache_hits" for name in found))
    """
    environment = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    hits = [
        int(subprocess.check_output([sys.executable, "-c", code], env=environment))
        for _ in range(2)
    ]
    assert hits[0] == 0 < hits[1]
    (program, *_) = (home / "cache/mmjax/programs").glob("*/*-cache")
    program.with_name("half-written-cache").write_bytes(b"")
    keep_programs()
    assert program.exists()
    assert not program.with_name("half-written-cache").exists()


@pytest.mark.parametrize(("verb", "kept"), [("doctor", True), ("bench", False)])
def test_verbs_keep_programs_unless_they_time_them(
    verb: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[bool] = []
    module = sys.modules["mmjax.cli.main"]
    monkeypatch.setattr(module, "keep_programs", lambda: called.append(True))
    assert main([verb, "--no_such_flag"]) == 2
    assert bool(called) is kept
