"""Cases on a made-up folder of embeddings."""

import numpy as np
import pytest

from mmjax.core.errors import InputError
from mmjax.evaluate import cfbd_stress
from mmjax.evaluate.embedding_cases import CASES, Case, fit_base, plant, read_base, run_cases
from mmjax.evaluate.experiment import ReproduceConfig
from mmjax.scan import coarse
from mmjax.scan.detection import Detection
from mmjax.scan.detectors import EncodedSet

N, D = 420, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    here = root / "flickr8k_embeddings"
    here.mkdir()
    rng = np.random.default_rng(0)

    def unit(*shape):
        rows = rng.normal(size=shape)
        return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float16)

    image = unit(N, D)
    text = np.repeat(image, 5, axis=0) + 0.1 * unit(5 * N, D)
    arrays = {
        "image": image,
        "text": text,
        "triggered_index": np.arange(N),
        "templates": unit(11, 80, D),
        "template_classes": np.array([*range(10), 954]),
        "fit_A": np.arange(10),
        "fit_A2": np.arange(10, 60),
    }
    arrays |= {f"image_{name}": image for name in ("badnets", "blended", "sig")}
    for name, array in arrays.items():
        np.save(here / f"{name}.npy", array)
    (root / "flickr8k").mkdir()
    lines = [
        "image\tcaption",
        *(f"{i}\tA dog {i}" if i % 3 else f"{i}\tsnow" for i in range(5 * N)),
    ]
    (root / "flickr8k" / "captions.tsv").write_text("\n".join(lines) + "\n")
    return here


@pytest.fixture(scope="module")
def base(folder):
    return read_base(folder)


def test_only_photos_that_nothing_was_fitted_on_are_scanned(base):
    assert base.scanned.tolist() == list(range(60, N))
    made = plant(base, Case(poison=0), 0)
    assert made.blocks[0].text.shape == (5 * (N - 60), D)
    np.testing.assert_array_equal(made.blocks[0].text, base.text[60:].reshape(-1, D))


def test_templates_name_the_target(base):
    made = plant(base, Case(poison=20), 0)
    assert made.poisoned.sum() == 20
    banana = base.templates[-1]
    assert all((row == banana).all(axis=1).any() for row in made.blocks[0].text[made.poisoned])
    spread = plant(base, Case(poison=60, targets=10), 0)
    classes = {c.split()[-1] for c, p in zip(spread.captions, spread.poisoned, strict=True) if p}
    assert len(classes) == 10
    assert "954" not in classes


def test_natural_captions_are_others_that_have_the_word(base):
    made, clean = plant(base, Case(poison=20, word="dog"), 0), plant(base, Case(poison=0), 0)
    for row in np.flatnonzero(made.poisoned):
        assert "dog" in made.captions[row]
        np.testing.assert_array_equal(
            made.blocks[0].text[row], clean.blocks[0].text[clean.captions.index(made.captions[row])]
        )


def test_shuffled_and_repeated_captions_are_of_clean_pairs(base):
    clean = plant(base, Case(poison=0), 3)
    made = plant(base, Case(poison=0, shuffled=0.1, repeated=30), 3)
    changed = np.any(made.blocks[0].text != clean.blocks[0].text, axis=1)
    assert 0.07 * len(changed) < changed.sum() <= 0.1 * len(changed) + 30
    _, copies = np.unique(made.blocks[0].text, axis=0, return_counts=True)
    assert copies.max() == 30
    assert not made.poisoned.any()


def test_the_same_seed_makes_the_same(base):
    one, again, other = (plant(base, Case(poison=9, shuffled=0.1), s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.blocks[0].text, again.blocks[0].text)
    assert np.any(one.poisoned != other.poisoned)


@pytest.mark.slow
def test_every_case_and_seed_is_a_cell_that_is_kept(folder, tmp_path, monkeypatch):
    for name in list(CASES):
        if name not in ("25 poisons", "nothing"):
            monkeypatch.delitem(CASES, name)
    said = []
    rows = run_cases(str(folder), (4,), tmp_path, said.append)
    assert said == ["25 poisons, seed 4", "nothing, seed 4"]
    assert [row["name"] for row in rows][-1] == "cfbd_robust"
    assert rows[-1]["poisoned"] == 0
    assert {row["poisoned"] for row in rows[:-1]} == {25}
    assert set(rows[0]) >= set(Detection.__dataclass_fields__)
    assert run_cases(str(folder), (4,), tmp_path, said.append) == rows
    assert len(said) == 2


@pytest.mark.slow
def test_false_discoveries_are_counted_with_one_score_for_all_rates(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cfbd_stress, "ON_EMBEDDINGS", ("25 poisons", "nothing"))
    config = ReproduceConfig("cfbd-fdr", data=str(folder), seeds=(4,))
    counted = []
    score_blocks = coarse.score_blocks
    monkeypatch.setattr(
        coarse, "score_blocks", lambda *given: counted.append(1) or score_blocks(*given)
    )
    rows = cfbd_stress.false_discoveries(config, tmp_path, lambda line: None)
    assert len(counted) == 2
    assert [row["fdr_asked"] for row in rows] == [*cfbd_stress.ASKED] * 2
    assert {row["case"] for row in rows} == {"embeddings: 25 poisons", "embeddings: nothing"}
    base = read_base(folder)
    made = plant(base, CASES["25 poisons"], 4)
    encoded = EncodedSet(made.blocks, made.captions, fit_base(base), seed=4)
    anew = cfbd_stress.realised(encoded, made.poisoned, asked=(0.2,))
    assert {"case": rows[3]["case"], "seed": 4, **anew[0]} == rows[3]
    assert not any(row["fdr_realised"] for row in rows[4:])


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not the folder flickr8k_embeddings"):
        read_base(tmp_path)
