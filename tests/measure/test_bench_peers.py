"""The peers in torch compute what ours compute: same weights, same inputs, tiny presets."""

import functools

import numpy as np
import pytest

from mmjax.measure import bench, bench_inputs
from mmjax.measure.bench_config import BenchConfig
from mmjax.measure.bench_goals import COMPUTES, GOALS
from mmjax.measure.bench_inputs import RESNET, VIT
from mmjax.models.clip import build
from mmjax.models.layouts import origin, read, shapes
from mmjax.models.presets import preset
from tests.models import tiny

pytestmark = pytest.mark.parity
bench_peers = pytest.importorskip("mmjax.measure.bench_peers", reason="needs torch and open_clip")
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
TINY = BenchConfig(size="tiny")


def weights_of(shape):
    """Our variables with values of which none is left at 0 or 1, statistics of norms included."""
    origins = [origin(path, leaf, "open_clip") for path, leaf in shapes(shape).items()]
    wanted = {name: source.shape for source in origins for name in source.names}
    return read(shape, "open_clip", wanted, tiny.fill_values(wanted, 7).__getitem__)


@pytest.fixture(autouse=True)
def filled(monkeypatch):
    """Both sides have these weights: random ones hardly tell images apart."""

    @functools.cache
    def model(name):
        return build(preset(name)), weights_of(preset(name))

    monkeypatch.setattr(bench_inputs, "model", model)


def parts(case, folder):
    """What one run of each part gives, ours and the peers', by the part's name."""
    made = {}
    for maker in (bench.CASES[case], bench.PEERS[case]):
        for part in bench._parts(maker, TINY, folder):
            made[part.name] = part.run()
    return made


def apart(found, wanted):
    return float(np.abs(np.asarray(found) - np.asarray(wanted)).max())


@pytest.fixture(params=["float32", "bfloat16"])
def compute(request, monkeypatch):
    """The type that torch's models are found fastest in."""
    chosen = ("float32", "bfloat16").index(request.param)
    monkeypatch.setattr(bench_peers, "_fastest", lambda runs, turns: chosen)
    return request.param


def test_images_are_embedded_alike(compute, tmp_path):
    made = parts("encode", tmp_path)
    resnet, vit = f"{RESNET['tiny']} images, ", f"{VIT['tiny']} images, "
    for ours, peer in (
        (f"{resnet}{compute}", f"{resnet}torch"),
        (f"{vit}{compute}", f"{vit}torch"),
        (f"{vit}bfloat16", f"{vit}plain flax, bfloat16"),
    ):
        error = apart(made[ours], made[peer])
        assert error <= TOLERANCE[ours.split(", ")[1]], peer
        assert 3 * error < apart(made[peer][0], made[peer][1]), "images are told apart by more"


@pytest.mark.parametrize("case", ["text", "pair"])
def test_captions_in_buckets_are_open_clips_in_the_full_context(case, compute, tmp_path):
    made = parts(case, tmp_path)
    (ours,) = (made[name] for name in made if name.endswith(f"real lengths, {compute}"))
    (peer,) = (made[name] for name in made if "torch" in name)
    assert apart(ours, peer) <= TOLERANCE[compute]
    captions = np.asarray(ours)[-1] if case == "pair" else np.asarray(ours)
    distances = np.linalg.norm(captions[:, None] - captions[None], axis=-1)
    assert np.sort(distances, axis=1)[:, 1].min() > 0.1, "no two captions are alike"


def test_the_loss_and_its_gradient_are_the_same(tmp_path):
    made = parts("loss", tmp_path)
    wanted = made.pop("loss and gradient, torch, whole matrix")
    assert len(made) == 2
    for value, gradients in made.values():
        assert apart(value, wanted[0]) <= TOLERANCE["float32"]
        for side in range(2):
            assert apart(gradients[side], wanted[1][side]) <= TOLERANCE["float32"]
            assert np.abs(np.asarray(gradients[side])).max() > 1e-3


def test_products_are_the_same(tmp_path):
    made = parts("neighbours", tmp_path)
    assert apart(made["the bare product"], made["the bare product, torch"]) <= TOLERANCE["float32"]


def test_noise_is_the_same_but_where_a_gradient_is_zero_up_to_rounding(tmp_path):
    made = parts("pgd", tmp_path)
    name = f"{RESNET['tiny']} noise, "
    ours, peer = made[f"{name}float32"], made[f"{name}torch, float32, folded"]
    ours, peer = np.asarray(ours, np.float32), np.asarray(peer)
    assert np.abs(ours).max() == np.abs(peer).max() == 8
    assert (ours == peer).mean() > 0.99


def test_the_search_ends_with_the_same_triggers(tmp_path):
    made = parts("hotflip", tmp_path)
    name = f"{RESNET['tiny']} trigger search, "
    (peer,) = (made[each] for each in made if "torch" in each)
    np.testing.assert_array_equal(made[f"{name}float32"], peer)
    from mmjax.measure.bench_towers import search_case

    assert (np.asarray(peer) != search_case(TINY).trigger).any()


@pytest.mark.parametrize("shape", [tiny.VIT, tiny.RESNET], ids=lambda shape: shape.name)
def test_folded_models_with_our_weights_are_the_unfolded(shape):
    import torch

    from mmjax.measure.torch_clip import fold_norms, open_clip_model
    from tests.models.torch_clip import fill

    source = open_clip_model(shape)
    fill(source, 7)
    copy = open_clip_model(shape, weights_of(shape))
    for name, tensor in source.state_dict().items():
        if tensor.is_floating_point() and not name.endswith("attn_mask"):
            assert torch.equal(tensor, copy.state_dict()[name]), name
    pixels = torch.from_numpy(tiny.images_of(shape)).permute(0, 3, 1, 2).float() / 255
    wanted = source.encode_image(pixels)
    found = fold_norms(copy).encode_image(pixels)
    assert not any(isinstance(each, torch.nn.BatchNorm2d) for each in copy.modules())
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_temporaries_are_what_a_run_holds_at_most_beside_its_results(tmp_path):
    import torch

    from mmjax.measure.bench_peers import temporaries

    def run():
        first = torch.ones(1000)  # 4,000 bytes
        second = first + 1
        del first
        return second + 1  # the result beside `second`

    # torch holds the number 1 too
    assert 4000 <= temporaries(run, tmp_path / "trace.json") < 4100


def test_torchs_versions_are_told(tmp_path):
    found = bench.bench(BenchConfig(case="loss", size="tiny", repeats=1), tmp_path, lambda _: None)
    assert {"torch", "open_clip_torch"} <= set(found["versions"])
    assert found["absent"] == ""


@pytest.mark.parametrize("case", sorted(bench.PEERS))
def test_goals_name_parts_that_there_are(case, tmp_path):
    """With the names of the small presets in the place of the large ones."""
    names = {
        part.name.replace(RESNET["tiny"], RESNET["full"]).replace(VIT["tiny"], VIT["full"])
        for maker in (bench.CASES[case], bench.PEERS[case])
        for part in bench._parts(maker, TINY, tmp_path)
    }
    wanted = {
        name.format(compute=compute)
        for goal in GOALS
        if goal.case == case
        for name in (goal.own, goal.peer)
        for compute in COMPUTES
    }
    assert wanted
    assert wanted <= names
