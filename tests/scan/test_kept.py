"""Figures that a scan keeps: the next decision reads them, and comes to what it would make anew."""

import numpy as np
import pytest

from mmjax.core.rundir import RunDir
from mmjax.scan import coarse, fine, stages
from mmjax.scan import kept as kept_module
from mmjax.scan.kept import Kept
from mmjax.scan.options import StageConfig
from tests.scan import synthetic


@pytest.fixture
def run(tmp_path):
    with RunDir.open(tmp_path / "run", verb="scan", config=StageConfig()) as opened:
        opened.finish("input", {}, fingerprint="a")
        yield opened


@pytest.mark.parametrize("mode", ["robust", "paper"])
def test_decisions_from_kept_figures_are_those_made_anew(run, monkeypatch, mode):
    image, text, _ = synthetic.pairs(900, seed=2, poison=30, shuffled=0.03)
    blocks, mapping = synthetic.blocks(image, text), synthetic.identity()
    kept = Kept(run, ["input"], write=True)
    one, other = (StageConfig(mode=mode, gamma=gamma) for gamma in (0.9, 0.8))
    stages.score(blocks, mapping, one, recall=kept)
    wanted = stages.score(blocks, mapping, other)

    def forbidden(*given, **named):
        raise AssertionError("embeddings are read again")

    for module, name in (
        (coarse, "score_blocks"),
        (fine, "read_signals"),
        (fine, "caption_graph"),
        (fine, "image_log_ratios"),
        (fine, "correlate"),
    ):
        monkeypatch.setattr(module, name, forbidden)
    found = stages.score(blocks, mapping, other, recall=Kept(run, ["input"], write=False))
    for name, values in found.scores._asdict().items():
        np.testing.assert_array_equal(values, getattr(wanted.scores, name), err_msg=name)
    assert found.thresholds == wanted.thresholds


def test_figures_of_another_input_code_or_damaged_ones_are_made_anew(run, monkeypatch):
    def made(number, **given):
        value = np.full(3, number, np.float32)
        kept = Kept(run, ["input"], **given)
        return float(kept("z", fine.Correlation, lambda: fine.Correlation(value[:, None])).z[0, 0])

    assert made(1, write=False) == 1
    assert made(2, write=True) == 2, "nothing was kept"
    assert made(3, write=False) == 2
    file = run.path / "stage" / "z.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    assert made(4, write=False) == 4
    file.write_bytes(whole)
    assert made(5, write=False) == 2
    with monkeypatch.context() as other:
        other.setattr(kept_module, "code_hash", lambda packages: "later")
        assert made(6, write=False) == 6
    assert made(7, write=False) == 2
    run.finish("input", {}, fingerprint="b")
    assert made(6, write=False) == 6
