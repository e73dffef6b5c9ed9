import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjax.attacks.templates import load_templates
from mmjax.core.errors import ConfigError, InputError
from mmjax.evaluate.labelled import open_labelled, read_names


def png(level: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(out, "PNG")
    return out.getvalue()


def write(folder: Path, name: str, data: bytes | str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def rows(labelled) -> list[tuple[str, str]]:
    (shard,) = labelled.source.shards
    view = labelled.source.open_shard(shard)
    pairs = [view[i] for i in range(len(view))]
    assert all(pair.status == "ok" for pair in pairs)
    return [(pair.key, pair.caption) for pair in pairs]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for i, name in enumerate(("zebra/1.png", "top_hat/a/2.PNG", "top_hat/3.png")):
        write(tmp_path, name, png(i))
    write(tmp_path, "zebra/notes.md", "no image")
    return tmp_path


def test_a_folder_a_class(folders):
    found = open_labelled(str(folders))
    assert found.classes == ("top hat", "zebra")
    assert rows(found) == [("top_hat/3.png", "0"), ("top_hat/a/2.PNG", "0"), ("zebra/1.png", "1")]


def test_names_of_a_file(folders):
    known = write(folders, "known.txt", "cat\nzebra\n\ntop hat\n")
    assert [n for _, n in rows(open_labelled(str(folders), known))] == ["2", "2", "1"]
    other = write(folders, "classnames.txt", "headwear\nanimal\n")
    for classes in ("", other):  # in the order of the folders
        found = open_labelled(str(folders), classes)
        assert found.classes == ("headwear", "animal")
        assert [n for _, n in rows(found)] == ["0", "0", "1"]
    few = write(folders, "few.json", json.dumps({"classnames": ["cat"]}))
    with pytest.raises(ConfigError, match="has 2 classes and 1 names are given"):
        open_labelled(str(folders), few)


def test_one_name_that_differs_is_refused_and_not_mapped_by_its_place(folders):
    with pytest.raises(ConfigError, match=r"2 classes and 2 names are given, and none is 'zebra'"):
        open_labelled(str(folders), write(folders, "names.txt", "zebras\ntop hat"))


def test_names_with_underscores_are_the_same(folders):
    names = write(folders, "names.txt", "zebra\ntop_hat\nzebra")
    found = open_labelled(str(folders), names)
    assert found.classes == ("zebra", "top_hat", "zebra")
    assert [number for _, number in rows(found)] == ["1", "1", "0"]


def test_imagenet_is_known_by_name(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("MMJAX_DATA", str(tmp_path / "data"))
    for read in (read_names, load_templates):
        with pytest.raises(ConfigError, match="imagenet1k: CLIP's class names"):
            read("imagenet1k")
    content = {"classnames": ["tench", "zebra", "top hat"], "templates": ["a {}.", "the {}."]}
    file = "tokenizer_and_prompts/imagenet_zero_shot.json"
    write(tmp_path / "data", file, json.dumps(content))
    assert open_labelled(str(folders), "imagenet1k").classes == ("tench", "zebra", "top hat")
    assert load_templates("imagenet1k") == ("a {}.", "the {}.")


def test_labels_tsv(tmp_path):
    write(tmp_path, "images/a.png", png(1))
    write(tmp_path, "images/b.png", png(2))
    write(tmp_path, "labels.tsv", "image\tclass\tmore\na.png\t1\tx\nb.png\t0\ty\n")
    names = write(tmp_path, "names.txt", "cat\ndog\nbird")
    assert rows(open_labelled(str(tmp_path), names)) == [("a.png", "1"), ("b.png", "0")]
    write(tmp_path, "labels.tsv", "a.png\tdog\nb.png\tfire_ant\n")
    assert open_labelled(str(tmp_path)).classes == ("dog", "fire ant")
    with pytest.raises(ConfigError, match="none is 'fire ant'"):
        open_labelled(str(tmp_path), names)
    write(tmp_path, "labels.tsv", "a.png\n")
    with pytest.raises(InputError, match=r"wants file TAB class, got 'a.png'"):
        open_labelled(str(tmp_path))


def test_tars_with_cls_members(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, data in (
            ("s0.png", png(1)),
            ("s0.cls", b"1"),
            ("s1.png", png(2)),
            ("s1.cls", b"0"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(ConfigError, match="--classes=FILE"):
        open_labelled(str(tmp_path))
    write(tmp_path, "classnames.txt", "cat\ndog\n")
    found = open_labelled(str(tmp_path))
    assert (found.classes, rows(found)) == (("cat", "dog"), [("s0", "1"), ("s1", "0")])


def test_a_captioned_folder_is_no_labelled_set(tmp_path):
    write(tmp_path, "images/a.png", png(1))
    with pytest.raises(InputError, match="has the class 'images' alone"):
        open_labelled(str(tmp_path))
    write(tmp_path, "captions.tsv", "a.png\ta cat\n")
    with pytest.raises(InputError, match="holds captions, not classes; add --task=retrieval"):
        open_labelled(str(tmp_path))


def test_nothing_labelled(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        open_labelled(str(tmp_path / "absent"))
    with pytest.raises(InputError, match="holds no labelled images"):
        open_labelled(str(tmp_path))


@pytest.mark.parametrize("content", ["", "\n", '{"other": []}', "[1, 2]", "{"])
def test_bad_names(tmp_path, content):
    with pytest.raises(ConfigError, match=r"names"):
        read_names(write(tmp_path, "names.json", content))


@pytest.mark.real
def test_imagenet_by_its_files(data_root):
    names = data_root / "tokenizer_and_prompts" / "imagenet_zero_shot.json"
    found = open_labelled(str(data_root / "imagenet1k_sample"), str(names))
    assert len(found.classes) == 1000
    assert (found.classes[0], found.classes[954]) == ("tench", "banana")
    numbers = {key: int(label) for key, label in rows(found)}
    assert sorted(numbers.values()) == list(range(1000))
    assert numbers["n07753592_banana.jpg"] == 954
    assert len(load_templates(str(names))) == 80
