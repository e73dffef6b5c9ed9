"""One protection on 1, 2, 4 and 8 simulated devices; prints what differs, as JSON.

JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=8 python -m tests.protect.eight_devices
"""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from mmjax.core.config import MeshConfig
from mmjax.data.scenes import write_scenes
from mmjax.models import presets
from mmjax.protect.pipeline import protect_pairs
from tests.protect.conftest import MODEL, protection

DEVICES = (1, 2, 4, 8)


def main():
    presets.PRESETS["tiny"] = MODEL
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_scenes(folder / "scenes", 22, 3, size=32, captions=2)
        states = {}
        for devices in DEVICES:
            config = dataclasses.replace(
                protection(folder / "scenes"), mesh=MeshConfig(data=devices)
            )
            out = folder / str(devices)
            protect_pairs(config, out)
            files = sorted((out / "state").glob("*.npy"))
            states[devices] = {path.name: np.load(path) for path in files}
        for devices, state in states.items():
            found[devices] = {
                name: int(np.sum(array != states[1][name])) for name, array in state.items()
            }
            found[devices]["changed"] = int(
                sum(np.any(array != 0) for name, array in state.items() if name[0] == "n")
            )
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
