"""`mmjax evaluate`: every task against figures computed by hand from the same embeddings."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from mmjax.attacks.config import AttackConfig, TriggerConfig
from mmjax.attacks.poison import attack
from mmjax.attacks.templates import TEMPLATES
from mmjax.attacks.victims import names_target
from mmjax.core.mesh import local_mesh
from mmjax.data.images import fit_square
from mmjax.data.scenes import make_scenes, write_scenes
from mmjax.evaluate import tasks
from mmjax.evaluate.attack_success import read_attacks
from mmjax.evaluate.embedding import Embedder, load_embedder
from mmjax.evaluate.retrieval import retrieval
from mmjax.train.batches import Place, read_pairs
from mmjax.train.config import DataConfig
from tests.e2e.conftest import Run, save_model
from tests.oracles import classification as oracle

STORED, SIZE = 48, 32
CLASSES = ["bird", "cup", "moon"]  # between which the random model wavers


class Lab(NamedTuple):
    """A model, labelled pictures in folders (one of them damaged), captioned ones in shards."""

    weights: str
    embedder: Embedder
    labelled: Path
    images: np.ndarray
    labels: list[int]
    shards: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("lab")
    save_model(folder / "model")
    weights = f"mmjax-dir:{folder / 'model'}"
    images, labels = [], []
    for number, scene in enumerate(make_scenes(15, 21, STORED, two_objects=0.0)):
        label = number * len(CLASSES) // 15
        (folder / "labelled" / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(
            folder / "labelled" / CLASSES[label] / f"{number:02d}.png"
        )
        images.append(scene.image)
        labels.append(label)
    (folder / "labelled" / "cup" / "bad.png").write_bytes(b"no image")
    write_scenes(folder / "shards", 60, 22, size=SIZE, captions=2, two_objects=0.5)
    embedder = load_embedder(weights, mesh=local_mesh(1), batch_size=4)
    return Lab(weights, embedder, folder / "labelled", np.stack(images), labels, folder / "shards")


def measure(run: Run, lab: Lab, where: Path, out: Path, *flags: str) -> dict[str, Any]:
    ran = run("evaluate", where, f"--weights={lab.weights}", f"--out={out}", *flags)
    assert ran.code == 0, ran.err
    assert f"result {out / 'result.json'}" in ran.out
    return json.loads((out / "result.json").read_text())


def predicted(lab: Lab, images: np.ndarray, templates=TEMPLATES) -> list[list[int]]:
    prompts = [lab.embedder.captions([t.replace("{}", c) for t in templates]) for c in CLASSES]
    fitted = np.stack([fit_square(Image.fromarray(image), SIZE) for image in images])
    return oracle.order(lab.embedder.images(fitted), oracle.classifier(prompts))


def test_zeroshot(lab: Lab, tmp_path: Path, run: Run) -> None:
    found = measure(run, lab, lab.labelled, tmp_path / "a", "--batch_size=4")
    ordered = predicted(lab, lab.images)
    assert found["task"] == "zeroshot_classification"
    assert found["language"] == "en"
    assert found["metrics"]["acc1"] == pytest.approx(oracle.top(ordered, lab.labels, 1))
    assert found["metrics"]["acc3"] == 1
    assert set(found["per_class"]) == set(CLASSES)
    assert (found["images"], found["skipped"]) == (15, {"undecodable_image": 1})
    (tmp_path / "prompts.txt").write_text("a {} on a wall\n")
    other = measure(
        run, lab, lab.labelled, tmp_path / "b", f"--templates={tmp_path / 'prompts.txt'}"
    )
    ordered = predicted(lab, lab.images, ["a {} on a wall"])
    assert other["metrics"]["acc1"] == pytest.approx(oracle.top(ordered, lab.labels, 1))


@pytest.mark.slow
def test_attack_success(lab: Lab, tmp_path: Path, run: Run) -> None:
    poisoned = tmp_path / "poisoned"
    trigger = TriggerConfig("badnets", patch_size=0.5)
    attack(
        AttackConfig(
            trigger=trigger, inputs=(str(lab.shards),), target="cup", image_size=STORED, rate=0.05
        ),
        poisoned,
    )
    flags = ["--task=attack", f"--attack={poisoned}", "--config.attack_seeds=4,5"]
    found = measure(run, lab, lab.labelled, tmp_path / "a", *flags)
    (one,) = read_attacks(poisoned)
    clean = [row[0] for row in predicted(lab, lab.images)]
    (told,) = found["attacks"]
    assert found["not_measured"] == []
    assert told["false_alarms"] == pytest.approx(oracle.attack_success(clean, lab.labels, 1))
    assert told["non_target_images"] == 10
    assert 0 < told["false_alarms"] < 1
    assert found["metrics"]["asr"] == pytest.approx(np.mean(told["asr_by_seed"]))
    assert found["metrics"]["acc1"] == pytest.approx(np.mean(np.array(clean) == lab.labels))
    # places depend on the pixels and the seed alone: stamped here one by one
    for seed, rate in zip((4, 5), told["asr_by_seed"], strict=True):
        names = [hashlib.sha256(image.tobytes()).hexdigest() for image in lab.images]
        stamped = np.concatenate([one.stamp(seed)(lab.images[[i]], [names[i]]) for i in range(15)])
        guesses = [row[0] for row in predicted(lab, stamped)]
        assert rate == pytest.approx(oracle.attack_success(guesses, lab.labels, 1))


def test_mmpoison(lab: Lab, tmp_path: Path, run: Run) -> None:
    poisoned = tmp_path / "poisoned"
    config = AttackConfig(
        name="mmpoison",
        trigger=TriggerConfig("none"),
        captions="keep",
        images="class",
        target="cat",
        donor="bird",
        count=1,
        inputs=(str(lab.shards),),
        image_size=SIZE,
    )
    attack(config, poisoned)
    found = measure(run, lab, lab.shards, tmp_path / "a", "--task=attack", f"--attack={poisoned}")
    table = read_pairs(Place(str(lab.shards)), SIZE, DataConfig())
    image = lab.embedder.images(table.images)
    captions = [text for each in table.captions for text in each]
    bird, cat = (
        [bool(names_target(name).search(text)) for text in captions] for name in ("bird", "cat")
    )
    shown = np.zeros(len(image), bool)
    shown[[o for o, b, c in zip(table.owners, bird, cat, strict=True) if b and not c]] = True
    text = lab.embedder.captions(
        [t for t, b, c in zip(captions, bird, cat, strict=True) if c and not b]
    )
    firsts = [oracle.first_rank((image @ row).tolist(), shown.tolist()) for row in text]
    assert found["metrics"]["min_rank"] == pytest.approx(np.mean(firsts))
    assert found["metrics"]["hit@5"] == pytest.approx(np.mean(np.array(firsts) <= 5))
    assert found["metrics"]["others_min_rank"] != found["metrics"]["min_rank"]
    (told,) = found["attacks"]
    assert (told["captions"], told["donor_images"]) == (len(text), int(shown.sum()))
    assert told["hit@5"] == found["metrics"]["hit@5"]
    # of a set with a trigger too, what is not measured is told
    manifest = json.loads((poisoned / "POISONED_DATASET.json").read_text())
    patched = {**manifest["attacks"][0], "attack": "patched", "trigger": "badnets", "target": "cup"}
    patched["parameters"] = {"patch_size": 0.5}
    manifest["attacks"].append(patched)
    (tmp_path / "both.json").write_text(json.dumps(manifest))
    flags = ["--task=attack", f"--attack={tmp_path / 'both.json'}"]
    ran = run(
        "evaluate", lab.labelled, f"--weights={lab.weights}", f"--out={tmp_path / 'b'}", *flags
    )
    assert ran.code == 0, ran.err
    assert "not measured, for they have no trigger: mmpoison" in ran.err
    found = json.loads((tmp_path / "b" / "result.json").read_text())
    assert [each["attack"] for each in found["attacks"]] == ["patched"]
    assert found["not_measured"] == ["mmpoison"]
    # two of them: each has its row, the metrics are means
    first = manifest["attacks"][0]
    manifest["attacks"] = [first, {**first, "target": "bird", "donor": "cat"}]
    (tmp_path / "two.json").write_text(json.dumps(manifest))
    flags = ["--task=attack", f"--attack={tmp_path / 'two.json'}"]
    two = measure(run, lab, lab.shards, tmp_path / "c", *flags)
    ranks = [each["min_rank"] for each in two["attacks"]]
    assert ranks[0] == pytest.approx(np.mean(firsts)) != ranks[1]
    assert two["metrics"]["min_rank"] == pytest.approx(np.mean(ranks))


def test_retrieval(lab: Lab, tmp_path: Path, run: Run) -> None:
    found = measure(run, lab, lab.shards, tmp_path / "a", "--task=retrieval")
    table = read_pairs(Place(str(lab.shards)), SIZE, DataConfig())
    text = lab.embedder.captions([t for each in table.captions for t in each])
    wanted = retrieval(lab.embedder.images(table.images), text, table.owners)
    metrics = found["metrics"]
    for k in (1, 5, 10):
        assert metrics[f"image_retrieval_recall@{k}"] == pytest.approx(
            wanted[f"text_to_image_hit@{k}"] / 100
        )
        assert metrics[f"text_retrieval_recall@{k}"] == pytest.approx(
            wanted[f"image_to_text_hit@{k}"] / 100
        )
    assert (found["images"], found["captions"]) == (60, 120)
    assert metrics["image_retrieval_chance@5"] == pytest.approx(5 / 60)
    missed = np.prod([(118 - i) / (120 - i) for i in range(5)])  # none of an image's two captions
    assert metrics["text_retrieval_chance@5"] == pytest.approx(1 - missed)


def test_probe(lab: Lab, tmp_path: Path, run: Run) -> None:
    flags = ["--task=probe", f"--train={lab.labelled}"]
    found = measure(run, lab, lab.labelled, tmp_path / "a", *flags)
    assert found["task"] == "linear_probe"
    assert found["train_images"] == found["images"] == 15
    assert found["metrics"]["lp_acc3"] == 1
    assert f"{found['C']:g}" in found["C_tried"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--task=probe"], "task=probe wants --train"),
        (["--attack=x"], "task=zeroshot takes no --attack"),
        (["--task=attack", "--attack=absent"], "absent is no POISONED_DATASET.json"),
        (["--classes=absent.txt"], "the class names in absent.txt cannot be read"),
        (["--templates=absent.txt"], "absent.txt cannot be read"),
    ],
)
def test_bad_input_is_one_line(
    lab: Lab, tmp_path: Path, run: Run, flags: list[str], said: str
) -> None:
    ran = run("evaluate", lab.labelled, f"--weights={lab.weights}", f"--out={tmp_path}", *flags)
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    assert said in ran.err
    assert not (tmp_path / "run.json").exists(), "the folder is free for the command that is right"


def test_a_mistake_with_overwrite_empties_nothing(lab: Lab, tmp_path: Path, run: Run) -> None:
    before = measure(run, lab, lab.labelled, tmp_path)
    wrong = ["--classes=absent.txt", "--overwrite"]
    ran = run("evaluate", lab.labelled, f"--weights={lab.weights}", f"--out={tmp_path}", *wrong)
    assert ran.code == 2
    assert json.loads((tmp_path / "result.json").read_text()) == before


def test_a_folder_in_use_is_refused_before_anything_is_read(
    lab: Lab, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setitem(tasks.TASKS, "zeroshot", lambda *_: pytest.fail("it was measured"))
    ran = run("evaluate", lab.labelled, f"--weights={lab.weights}", f"--out={tmp_path}")
    assert ran.code == 2
    assert "choose an empty --out" in ran.err


def test_a_set_or_model_that_is_not_there(lab: Lab, tmp_path: Path, run: Run) -> None:
    for flags, said in (
        ((tmp_path / "absent", f"--weights={lab.weights}"), "no such file or folder"),
        ((lab.labelled,), "which model?"),
        ((lab.labelled, "--weights=mmjax-dir:absent"), "no such folder"),
    ):
        ran = run("evaluate", *flags, f"--out={tmp_path / 'out'}")
        assert (ran.code, len(ran.err.splitlines())) == (2, 1)
        assert said in ran.err
