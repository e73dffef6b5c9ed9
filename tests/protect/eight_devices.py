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
            states[devices] = tuple(map(np.load, sorted((out / "state").glob("*.npy"))))
        for devices, (noise, triggers) in states.items():
            found[devices] = {
                "noise": int(np.sum(noise != states[1][0])),
                "triggers": int(np.sum(triggers != states[1][1])),
                "changed": int(np.sum(noise != 0)),
                "values": noise.size,
            }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
