import numpy as np
import pytest

from mmjax.core.errors import ConfigError, InputError
from mmjax.core.mesh import local_mesh
from mmjax.data.scenes import scene_arrays
from mmjax.evaluate.embedding import Embedder, class_embeddings, load_embedder
from mmjax.evaluate.zeroshot import accuracy, labels_of, nearest_classes
from tests.e2e.conftest import TINY, save_model
from tests.oracles import classification as oracle

CLASSES = ("cat", "boat", "clock", "top hat", "moon", "key", "kite")
TEMPLATES = ("a photo of a {}.", "{}", "my {} at night")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    save_model(folder)
    return f"mmjax-dir:{folder}"


def load(weights: str, devices: int, batch_size: int) -> Embedder:
    return load_embedder(weights, mesh=local_mesh(devices), batch_size=batch_size)


def test_batch_size_and_devices_change_nothing(weights):
    images = scene_arrays(13, 5, TINY.vision.image_size).images
    found = []
    for devices, batch_size in ((1, 13), (2, 4), (4, 3)):
        embedder = load(weights, devices, batch_size)
        assert embedder.batch_size % devices == 0
        image = embedder.images(images)
        classifier = class_embeddings(embedder, CLASSES, TEMPLATES)
        nearest = nearest_classes(image, classifier, mesh=embedder.mesh, block=batch_size)
        found.append((image, classifier, nearest))
    for image, classifier, nearest in found[1:]:
        np.testing.assert_allclose(image, found[0][0], atol=1e-6)
        np.testing.assert_allclose(classifier, found[0][1], atol=1e-6)
        np.testing.assert_array_equal(nearest, found[0][2])
    assert len(np.unique(found[0][2], axis=0)) > 1
    assert load(weights, 1, 13).images(images[:0]).shape == (0, TINY.embed_dim)


def test_prompts_are_averaged_after_normalising(weights):
    embedder = load(weights, 1, 8)
    texts = [[template.replace("{}", name) for template in TEMPLATES] for name in CLASSES]
    wanted = oracle.classifier([embedder.captions(each) for each in texts])
    found = class_embeddings(embedder, CLASSES, TEMPLATES)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_accuracy_by_hand():
    rng = np.random.default_rng(1)
    classes, image = (rng.normal(size=(n, 6)).astype(np.float32) for n in (7, 40))
    labels = rng.integers(0, 6, 40).astype(np.int32)  # the last class has no image
    nearest = nearest_classes(image, classes, mesh=local_mesh(4), block=16)
    ordered = oracle.order(image, classes)
    np.testing.assert_array_equal(nearest, [row[:5] for row in ordered])
    found = accuracy(nearest, labels, CLASSES)
    for k in (1, 3, 5):
        assert found.metrics[f"acc{k}"] == pytest.approx(oracle.top(ordered, labels.tolist(), k))
    own = [oracle.top([r for r, l in zip(ordered, labels, strict=True) if l == c],
                      [c] * int(np.sum(labels == c)), 1) for c in range(6)]  # fmt: skip
    assert list(found.per_class.values()) == pytest.approx(own)
    assert "kite" not in found.per_class
    twice = accuracy(np.zeros((3, 1), np.int32), np.arange(3, dtype=np.int32), ["a", "a", "b"])
    assert twice.per_class == {"a": 1, "a (1)": 0, "b": 0}
    assert twice.metrics["mean_per_class_recall"] == pytest.approx(1 / 3)
    assert found.metrics["mean_per_class_recall"] == pytest.approx(np.mean(own))


def test_ties_and_few_classes():
    same = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(nearest_classes(same, same, mesh=local_mesh(1)), [[0, 1]] * 2)
    found = accuracy(np.array([[0, 1]], np.int32), np.array([1], np.int32), ("a", "b"))
    assert (found.metrics["acc1"], found.metrics["acc5"]) == (0, 1)
    with pytest.raises(InputError, match="no image"):
        accuracy(np.zeros((0, 2), np.int32), np.zeros(0, np.int32), ("a", "b"))


@pytest.mark.parametrize("caption", ["7", "cat", "-1", ""])
def test_labels_are_numbers_of_classes(caption):
    np.testing.assert_array_equal(labels_of(["6", " 0\n"], CLASSES), [6, 0])
    with pytest.raises(ConfigError, match="is no number of the 7 classes"):
        labels_of(["0", caption], CLASSES)
