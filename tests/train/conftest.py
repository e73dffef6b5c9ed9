"""The smallest model that still learns, as a preset."""

from collections.abc import Iterator

import pytest

from mmjax.models import presets
from mmjax.models.presets import Preset, TextPreset, VisionPreset


@pytest.fixture(scope="session")
def tiny() -> Iterator[Preset]:
    shape = Preset(
        name="tiny",
        embed_dim=16,
        vision=VisionPreset(32, 32, 1, patch_size=16, head_width=32),
        text=TextPreset(width=32, heads=1, layers=1, vocab_size=640, context_length=32),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.PRESETS, "tiny", shape)
        yield shape
