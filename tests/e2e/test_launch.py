"""The launchers: a verb gets onto machines, its exit code comes back."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import environment

pytestmark = pytest.mark.e2e


def launch(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`local.sh`, with the tests' interpreter's folder on the path."""
    env = environment() | variables
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    command = [str(ROOT / "launch" / "local.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)


def test_local_runs_a_verb_on_as_many_devices_as_asked():
    ran = launch("doctor", DEVICES="2")
    assert "2 x cpu" in ran.stdout, ran.stderr


def test_local_hands_on_the_exit_code_and_wants_a_verb():
    assert launch("scan", "nowhere.tar").returncode == 2
    ran = launch()
    assert ran.returncode == 2
    assert ran.stderr.startswith("usage: launch/local.sh VERB")
