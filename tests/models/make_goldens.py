"""Makes goldens/*.npz: what torch's open_clip and transformers compute for the tiny models.

Only outputs are stored; weights and inputs come from `tiny.py` on both sides.
Needs the parity extra. Run from the project's root: python -m tests.models.make_goldens
"""

from pathlib import Path

import numpy as np

from tests.models.tiny import PRESETS, images_of, tokens_of
from tests.models.torch_clip import open_clip_outputs, transformers_outputs

FOLDER = Path(__file__).parent / "goldens"
SEED = 7


def main() -> None:
    """Writes one file for each tiny model."""
    FOLDER.mkdir(exist_ok=True)
    for name, preset in PRESETS.items():
        images, tokens = images_of(preset), tokens_of(preset)
        _, found = open_clip_outputs(preset, images, tokens, SEED)
        arrays = {f"open_clip_{key}": value for key, value in found.items()}
        if preset.vision.kind == "vit":
            _, found, _ = transformers_outputs(preset, images, tokens, SEED)
            arrays |= {f"transformers_{key}": value for key, value in found.items()}
        np.savez_compressed(FOLDER / f"{name}.npz", allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
