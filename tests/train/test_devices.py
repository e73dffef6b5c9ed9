"""Training on 8 simulated devices is training on 1, however the state is split."""

import pytest

from tests.e2e.conftest import on_eight_devices

pytestmark = pytest.mark.slow
SHARES = {"data": 1.0, "fsdp": 0.2, "tensor": 0.7, "fsdp and tensor": 0.2}
"""What a device may hold of the state at most, by what is split."""


@pytest.fixture(scope="module")
def found():
    return on_eight_devices("-m", "tests.train.eight_devices")


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
