"""The score stage says the same on any number of devices."""

import pytest

from tests.e2e.conftest import on_eight_devices

SCRIPT = """
import json
import numpy as np
from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.scan.options import StageConfig
from mmjax.scan.stages import score
from tests.scan import synthetic

image, text, poisoned = synthetic.pairs(700, seed=0, poison=30, shuffled=0.02)
blocks = synthetic.blocks(image, text)
said = []
for devices in (0, 1, 2, 4, 8):
    mesh = make_mesh(MeshConfig(data=devices)) if devices else None
    found = score(blocks, synthetic.identity(), StageConfig(chunk_rows=128), mesh=mesh)
    scores = found.scores._asdict()
    said.append({name: np.nan_to_num(values).tolist() for name, values in scores.items()})
print(json.dumps({"said": said, "poisoned": int(found.scores.verdict[poisoned].sum())}))
"""


@pytest.mark.slow
def test_devices_do_not_matter() -> None:
    found = on_eight_devices("-c", SCRIPT)
    alone, *on_mesh = found["said"]
    assert found["poisoned"] >= 2 * 29  # there was something to find
    for scores in on_mesh:
        assert scores == alone  # to the last bit
