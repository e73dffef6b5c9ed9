"""Training on 8 simulated devices is training on 1, however the state is split."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import SECONDS, environment

pytestmark = pytest.mark.slow
SHARES = {"data": 1.0, "fsdp": 0.2, "tensor": 0.7, "fsdp and tensor": 0.2}
"""What a device may hold of the state at most, by what is split."""


@pytest.fixture(scope="module")
def found():
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.eight_devices"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(devices=8),
        timeout=12 * SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "case",
    [*(f"vit: {split}" for split in SHARES), "resnet: data", "resnet: fsdp and tensor"],
)
def test_one_and_eight_devices_agree(found, case):
    apart = found[case]
    assert apart["loss"] < 1e-5
    assert apart["gradients"] < 1e-5
    assert apart["params"] < 1e-4
    assert apart["statistics"] < 1e-4
    assert apart["bytes"] <= SHARES[case.partition(": ")[2]]
