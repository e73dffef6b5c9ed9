import numpy as np
import pytest
from PIL import Image

from mmjax.core.errors import ConfigError, InputError
from mmjax.data.pairs import PairTable
from mmjax.data.scenes import write_scenes
from mmjax.data.tokenizer import load_tokenizer, train_bpe
from mmjax.train.batches import (
    Place,
    check_data,
    generate_pairs,
    heldout_pairs,
    make_batches,
    read_pairs,
    training_pairs,
)
from mmjax.train.config import DataConfig, TrainConfig


@pytest.fixture(scope="module")
def table():
    """Ten images whose pixels say which they are, with one to four captions each."""
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    captions = tuple(
        tuple(f"number {chr(97 + i)} way {chr(97 + k)}" for k in range(1 + i % 4))
        for i in range(10)
    )
    return PairTable(images, captions, {})


@pytest.fixture(scope="module")
def tokenizer(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    train_bpe([c for each in table.captions for c in each], 560, path)
    return load_tokenizer(path, context_length=32)


def batches(table, tokenizer, k=1, seed=0):
    return make_batches(table, tokenizer, batch_size=4, captions_per_image=k, seed=seed)


def decoded(tokenizer, tokens):
    return [[tokenizer.decode(caption.tolist()) for caption in image] for image in tokens]


def test_pairs_belong_together(table, tokenizer):
    for step in range(5):
        batch = batches(table, tokenizer, k=2)(step)
        assert batch["images"].shape == (4, 4, 4, 3)
        assert batch["tokens"].shape == (4, 2, 16)
        for image, texts in zip(batch["images"], decoded(tokenizer, batch["tokens"]), strict=True):
            number = int(image[0, 0, 0])
            assert set(texts) <= set(table.captions[number])


def test_an_epoch_of_pairs_shows_every_pair_once(table, tokenizer):
    batch_at = make_batches(
        table, tokenizer, batch_size=4, captions_per_image=1, epoch_of="pairs", seed=0
    )
    every = sorted((i, text) for i, texts in enumerate(table.captions) for text in texts)
    assert len(every) == 23
    orders = []
    for epoch in range(3):
        seen = []
        for step in range(5 * epoch, 5 * epoch + 5):
            batch = batch_at(step, marks=lambda _: {"row": np.arange(23)})
            texts = [text for (text,) in decoded(tokenizer, batch["tokens"])]
            assert [every[row][1] for row in batch["row"][:, 0]] == texts
            seen += zip(batch["images"][:, 0, 0, 0].tolist(), texts, strict=True)
        assert len(set(seen)) == 20
        assert set(seen) <= set(every)
        orders.append(seen)
    assert orders[0] != orders[1]
    with pytest.raises(ConfigError, match="captions_per_image must be 1"):
        TrainConfig(epoch_of="pairs", captions_per_image=2).validate()


def test_an_epoch_shows_no_image_twice_and_epochs_differ(table, tokenizer):
    batch_at = batches(table, tokenizer)
    epochs = [
        [int(n) for step in (2 * e, 2 * e + 1) for n in batch_at(step)["images"][:, 0, 0, 0]]
        for e in range(4)
    ]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert set().union(*epochs) == set(range(10))


def test_captions_take_turns(table, tokenizer):
    batch_at = batches(table, tokenizer, k=2)
    seen: dict[int, list[str]] = {}
    for step in range(40):
        batch = batch_at(step)
        for image, texts in zip(batch["images"], decoded(tokenizer, batch["tokens"]), strict=True):
            seen.setdefault(int(image[0, 0, 0]), []).extend(texts)
            wanted = min(2, len(table.captions[int(image[0, 0, 0])]))
            assert len(set(texts)) == wanted
    assert {number: len(set(texts)) for number, texts in seen.items()} == {
        number: len(table.captions[number]) for number in range(10)
    }


def test_a_batch_depends_on_step_and_seed_alone(table, tokenizer):
    one, other = batches(table, tokenizer)(7), batches(table, tokenizer)(7)
    np.testing.assert_array_equal(one["images"], other["images"])
    np.testing.assert_array_equal(one["tokens"], other["tokens"])
    assert not np.array_equal(one["images"], batches(table, tokenizer, seed=1)(7)["images"])


def test_views_belong_to_their_rows_and_to_the_step(table, tokenizer):
    noise = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), np.uint8)
    table = table._replace(images=noise)
    batch_at = batches(table, tokenizer, k=2)
    plain, beside, instead = (batch_at(3, views=v) for v in ("none", "beside", "instead"))
    assert set(plain) == {"images", "tokens"}
    for name, view in (("images", "image_views"), ("tokens", "token_views")):
        np.testing.assert_array_equal(plain[name], beside[name])
        np.testing.assert_array_equal(instead[name], beside[view])
        assert beside[view].shape == beside[name].shape
        assert not np.array_equal(beside[view], beside[name])
    for texts, views in zip(
        *(decoded(tokenizer, beside[name]) for name in ("tokens", "token_views")), strict=True
    ):
        for text, view in zip(texts, views, strict=True):
            assert set(view.split()) <= set(text.split())  # words that no synonyms are known of
    np.testing.assert_array_equal(
        batches(table, tokenizer, k=2)(3, views="beside")["image_views"], beside["image_views"]
    )
    later = batch_at(3 + 2 * 5 * 4, views="instead")
    assert not np.array_equal(later["images"], instead["images"])


def test_processes_feed_the_rows_of_the_whole_batch(table, tokenizer):
    def parts(views):
        made = [
            make_batches(table, tokenizer, batch_size=4, captions_per_image=2, seed=0, part=(i, 2))(
                1, views=views, marks=lambda epoch: {"number": np.arange(len(table.owners))}
            )
            for i in range(2)
        ]
        return {name: np.concatenate([part[name] for part in made]) for name in made[0]}

    whole = batches(table, tokenizer, k=2)(1, views="beside")
    joined = parts("beside")
    for name, rows in whole.items():
        np.testing.assert_array_equal(joined[name], rows)
    captions = [text for each in table.captions for text in each]
    assert decoded(tokenizer, whole["tokens"]) == [
        [captions[n] for n in row] for row in joined["number"]
    ]


def test_too_few_images_are_refused(table, tokenizer):
    with pytest.raises(ConfigError, match="batch of 11 images wants at least as many, got 10"):
        make_batches(table, tokenizer, batch_size=11, captions_per_image=1, seed=0)


def test_owners(table):
    np.testing.assert_array_equal(table.owners[:6], [0, 1, 1, 2, 2, 2])


def test_read_pairs_equals_what_was_written(tmp_path):
    write_scenes(tmp_path, 12, 5, size=32)
    read = read_pairs(Place(str(tmp_path)), 32, DataConfig())
    made = generate_pairs(12, 32, 1, seed=5)
    np.testing.assert_array_equal(read.images, made.images)
    assert read.captions == made.captions
    assert read.origins == tuple(("00000", row) for row in range(12))
    assert read.skipped == {}


def test_scenes_held_out_are_other_scenes():
    config = DataConfig(scenes=6, heldout_scenes=4, scene_captions=2)
    learned, held = training_pairs(config, 16, seed=0), heldout_pairs(config, 16, seed=0)
    assert held is not None
    assert learned.images.shape == (6, 16, 16, 3)
    assert all(len(each) == 2 for each in learned.captions)
    assert len(held.images) == 4
    assert not (learned.images[:4] == held.images).all(axis=(1, 2, 3)).any()
    assert heldout_pairs(DataConfig(heldout_scenes=0), 16, seed=0) is None


@pytest.mark.parametrize(
    "options",
    [
        {"split": "train", "heldout_split": "train"},
        {"split": "train,dev", "heldout_split": "dev,test"},
        {"heldout_split": "test"},
        {"split": "train", "heldout": "x"},
        {"heldout": "x"},
        {"heldout": "./x/"},
        {"split": "train, val", "heldout_split": "val"},
    ],
)
def test_one_pair_cannot_be_both_learned_from_and_held_out(options):
    with pytest.raises(ConfigError, match="share pairs"):
        DataConfig(location="x", **options).validate()


def test_other_splits_and_other_sets_can_be_held_out():
    DataConfig(location="x", split="train", heldout_split="dev,test").validate()
    DataConfig(location="x", split="train", heldout="y", heldout_split="train").validate()
    DataConfig(location="x", heldout="y").validate()
    DataConfig(location="x", split="train").validate()


def test_columns_of_what_is_learned_from_and_of_what_is_held_out(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "0.png")
    (tmp_path / "odd.csv").write_text("picture,words\n0.png,learned\n")
    (tmp_path / "usual.csv").write_text("filepath,title\n0.png,held out\n")
    odd, usual = str(tmp_path / "odd.csv"), str(tmp_path / "usual.csv")
    columns = "picture,words"
    config = DataConfig(location=odd, columns=columns, heldout=usual)
    check_data(config)
    learned, held = training_pairs(config, 8, seed=0), heldout_pairs(config, 8, seed=0)
    assert held is not None
    assert (learned.captions, held.captions) == ((("learned",),), (("held out",),))
    check_data(DataConfig(location=usual, heldout=odd, heldout_columns=columns))
    with pytest.raises(InputError, match="has columns picture, words"):
        check_data(DataConfig(location=usual, heldout=odd, columns="filepath,title"))


def test_images_that_memory_cannot_hold_make_the_same_batches(tmp_path):
    write_scenes(tmp_path / "set", 12, 5, size=32)
    train_bpe(["a red car on grass"], 560, tmp_path / "tokenizer.json")
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json", context_length=32)
    held, stored = (
        training_pairs(DataConfig(location=str(tmp_path / "set"), memory_gb=gb), 16, seed=0)
        for gb in (1.0, 0.0)
    )
    assert isinstance(held.images, np.ndarray)
    assert not isinstance(stored.images, np.ndarray)
    for step in range(4):
        one, other = (batches(table, tokenizer)(step) for table in (held, stored))
        np.testing.assert_array_equal(one["images"], other["images"])
        np.testing.assert_array_equal(one["tokens"], other["tokens"])
