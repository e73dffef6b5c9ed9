"""Probes leave the row that they predict out, and see what is there to be seen."""

import json

import numpy as np

from mmjax.evaluate.cfbd_probe import RIDGES, SEEN, probe, write_probes


def left_out(features, truth, ridge):
    """By refitting once a row."""
    made = []
    for i in range(len(truth)):
        x, y = np.delete(features, i, 0), np.delete(truth, i)
        centre, level = x.mean(axis=0), y.mean()
        moments = (x - centre).T @ (x - centre) + ridge * np.eye(x.shape[1])
        weights = np.linalg.solve(moments, (x - centre).T @ (y - level))
        made.append((features[i] - centre) @ weights + level)
    return np.array(made)


def test_equal_to_a_fit_for_every_row() -> None:
    rng = np.random.default_rng(0)
    features, truth = rng.normal(size=(40, 5)), rng.random(40) < 0.3
    found = probe(features, truth)
    wanted = [left_out(features, truth.astype(float), ridge) for ridge in RIDGES]
    errors = [np.abs(found - each).max() for each in wanted]
    best = int(np.argmin([np.mean((each - truth) ** 2) for each in wanted]))
    assert errors[best] < 1e-9
    assert np.sum(np.array(errors) < 1e-9) == 1


def test_a_product_shows_what_neither_side_does() -> None:
    rng = np.random.default_rng(1)
    image, text = rng.normal(size=(2, 400, 3))
    truth = np.einsum("nd,nd->n", image, text) < -1
    rates = {
        name: np.corrcoef(probe(look(image, text), truth), truth)[0, 1]
        for name, look in SEEN.items()
    }
    assert rates["images, captions, their products"] > 0.5
    assert max(rates["images"], rates["captions"]) < 0.2


def test_the_page_has_a_row_a_probe(tmp_path) -> None:
    rows = [
        {"attack": "sig", "seed": 0, "detector": name, "auroc": 0.5, "tpr_at_0_1_fpr": 0.0}
        for name in SEEN
    ]
    (tmp_path / "r.json").write_text(json.dumps({"title": "T", "command": "c", "rows": rows}))
    write_probes(tmp_path / "r.json", tmp_path / "r.md")
    assert "| captions | 0.5000 |" in (tmp_path / "r.md").read_text()
