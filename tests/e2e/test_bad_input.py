"""What a user gets wrong is one line on stderr and exit 2, before a folder is claimed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.data.faults import (
    pair,
    write_tar,
)
from tests.e2e.conftest import Run, World, embeddings, save_model

Arguments = list[str]


def _write(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def _images(world: World, *arguments: str) -> Arguments:
    return ["scan", str(world.shards), f"--mapping={world.mapping}", *arguments]


def _wrong_shape(world: World, folder: Path) -> Arguments:
    shutil.copytree(world.model, folder / "model")
    file = folder / "model" / "model.safetensors"
    tensors = load_file(file)
    name = min(n for n, value in tensors.items() if value.ndim == 2)
    tensors[name] = np.ascontiguousarray(tensors[name][:, :-1])
    save_file(tensors, file)
    return _images(world, f"--weights=mmjax-dir:{folder / 'model'}")


def _truncated_weights(world: World, folder: Path) -> Arguments:
    shutil.copytree(world.model, folder / "model")
    file = folder / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return _images(world, f"--weights=mmjax-dir:{folder / 'model'}")


def _no_tokenizer(world: World, folder: Path) -> Arguments:
    shutil.copytree(world.model, folder / "model")
    (folder / "model" / "tokenizer.json").unlink()
    return _images(world, f"--weights=mmjax-dir:{folder / 'model'}")


def _empty_vocabulary(world: World, folder: Path) -> Arguments:
    file = folder / "tokenizer.json"
    known = json.loads((world.model / "tokenizer.json").read_text())
    known["model"]["vocab"] = {}
    file.write_text(json.dumps(known))
    return [*_images(world, f"--weights={world.weights}"), f"--tokenizer={file}"]


def _small_vocabulary(world: World, folder: Path) -> Arguments:
    from mmjax.data.tokenizer import train_bpe

    train_bpe(["a cat"], 520, folder / "tokenizer.json")
    return [*_images(world, f"--weights={world.weights}"), f"--tokenizer={folder}"]


def _other_weights(world: World, folder: Path) -> Arguments:
    save_model(folder / "other", seed=1)
    return _images(world, f"--weights=mmjax-dir:{folder / 'other'}")


def _pickled_folder(folder: Path) -> Path:
    _write(folder / "pytorch_model.bin", b"PK")
    config = {"model_type": "clip", "vision_config": {}, "text_config": {}}
    _write(folder / "config.json", json.dumps(config).encode())
    return folder


def _disagreeing(world: World, folder: Path, change: Callable[[Path], None]) -> Arguments:
    change(embeddings(folder / "emb", 60, seed=1))
    return ["scan", str(folder / "emb"), f"--reference={folder / 'emb'}"]


def _shorter(folder: Path) -> None:
    file = folder / "text_emb" / "text_emb_0.npy"
    np.save(file, np.load(file)[:-1])


def _narrower(folder: Path) -> None:
    file = folder / "text_emb" / "text_emb_1.npy"
    np.save(file, np.load(file)[:, :-1])


def _objects(folder: Path) -> None:
    rows = np.array([{"a": 1}] * 30, dtype=object)
    np.save(folder / "img_emb" / "img_emb_0.npy", rows, allow_pickle=True)


def _missing_part(folder: Path) -> None:
    (folder / "metadata" / "metadata_1.parquet").unlink()


def _narrow_reference(world: World, folder: Path) -> Arguments:
    embeddings(folder / "emb", 60, seed=1)
    reference = embeddings(folder / "reference", 60, seed=2)
    for part in reference.glob("*_emb/*.npy"):
        np.save(part, np.load(part)[:, :16])
    return ["scan", str(folder / "emb"), f"--reference={reference}", "--config.fit.kind=ridge"]


def _foreign_files(world: World, folder: Path) -> Arguments:
    _write(folder / "run" / "thesis.tex", b"years of work")
    return _images(world, f"--weights={world.weights}", f"--out={folder / 'run'}")


def _whole(world: World, *arguments: str) -> Arguments:
    return [*_images(world, f"--weights={world.weights}"), *arguments]


def _instead(world: World, location: str | Path) -> Arguments:
    return ["scan", str(location), *world.flags]


REFUSED: dict[str, tuple[str, Callable[[World, Path], Arguments]]] = {
    "no such file": ("no such file", lambda w, t: _instead(w, t / "nowhere.tar")),
    "not a tar": (
        "is no tar: it looks like Parquet",
        lambda w, t: _instead(w, _write(t / "a.tar", b"PAR1" + bytes(600))),
    ),
    "empty glob": ("nothing matches", lambda w, t: _instead(w, t / "*.tar")),
    "brace typo": (
        "do not exist, the first is",
        lambda w, t: _instead(w, f"{w.shards}/{{00000..00009}}.tar"),
    ),
    "open brace": ("Unbalanced braces", lambda w, t: _instead(w, f"{w.shards}/{{00000..00004.tar")),
    "empty folder": ("is no folder of a known format", lambda w, t: _instead(w, t)),
    "empty tar": (
        "holds no pairs",
        lambda w, t: _instead(w, write_tar(t / "empty.tar", [])),
    ),
    "zero-byte tar": ("", lambda w, t: _instead(w, _write(t / "zero.tar", b""))),
    "pipe": ("is not a local path", lambda w, t: _instead(w, f"pipe:touch {t}/hacked")),
    "http": ("is not a local path", lambda w, t: _instead(w, "http://169.254.169.254/a.tar")),
    "cc3m urls": (
        "img2dataset",
        lambda w, t: _instead(
            w, _write(t / "Train_GCC-training.tsv", b"a dog runs\thttp://x.org/1.jpg\n" * 9)
        ),
    ),
    "weights of the wrong shape": ("shape", _wrong_shape),
    "truncated weights": ("model.safetensors", _truncated_weights),
    "no weights folder": (
        "no such folder",
        lambda w, t: _images(w, f"--weights=hf-dir:{t / 'nowhere'}"),
    ),
    "weights without a kind": ("no known kind", lambda w, t: _images(w, f"--weights={w.model}")),
    "pickled weights": (
        "mmjax convert",
        lambda w, t: _images(w, f"--weights={_write(t / 'ViT-B-32.pt', b'PK')}"),
    ),
    "pickled weights in a folder": (
        "mmjax convert",
        lambda w, t: _images(
            w,
            f"--weights=hf-dir:{_pickled_folder(t)}",
        ),
    ),
    "no weights": ("--weights=", lambda w, t: _images(w)),
    "no tokenizer": ("--tokenizer", _no_tokenizer),
    "tokenizer without vocabulary": ("tokenizer.json", _empty_vocabulary),
    "tokenizer of another size": ("has 520 tokens, the model has 600", _small_vocabulary),
    "tokenizer in an empty folder": ("tokenizer", lambda w, t: _whole(w, f"--tokenizer={t}")),
    "unknown key": (
        "did you mean config.encode.batch_size",
        lambda w, t: _whole(w, "--config.encode.batch_sise=3"),
    ),
    "wrong value": ("wants", lambda w, t: _whole(w, "--config.stages.gamma=2")),
    "mapping of other weights": ("other weights", _other_weights),
    "no such mapping": (
        "is not a mapping folder",
        lambda w, t: ["scan", str(w.shards), f"--weights={w.weights}", f"--mapping={t}"],
    ),
    "neither mapping nor reference": (
        "--reference",
        lambda w, t: ["scan", str(w.shards), f"--weights={w.weights}"],
    ),
    "both mapping and reference": (
        "not both",
        lambda w, t: _whole(w, f"--reference={w.reference}"),
    ),
    "no such reference": (
        "no such file",
        lambda w, t: [
            *["scan", str(w.shards), f"--weights={w.weights}"],
            f"--reference={t / 'nowhere'}",
        ],
    ),
    "images as the reference of embeddings": (
        "embeddings",
        lambda w, t: ["scan", str(embeddings(t / "e", 60, seed=1)), f"--reference={w.reference}"],
    ),
    "clean shards of embeddings": (
        "keep.parquet",
        lambda w, t: [
            *["scan", str(embeddings(t / "e", 60, seed=1)), f"--reference={t / 'e'}"],
            *["--config.fit.kind=ridge", "--write_clean"],
        ],
    ),
    "captions wanted, no tokenizer": (
        "--tokenizer",
        lambda w, t: ["scan", str(embeddings(t / "e", 60, seed=1)), f"--reference={t / 'e'}"],
    ),
    "fewer captions than images": (
        "they must agree",
        lambda w, t: _disagreeing(w, t, _shorter),
    ),
    "another width": ("must come from one model", lambda w, t: _disagreeing(w, t, _narrower)),
    "pickled embeddings": (
        "no readable array",
        lambda w, t: _disagreeing(w, t, _objects),
    ),
    "a part without rows": ("is missing", lambda w, t: _disagreeing(w, t, _missing_part)),
    "a reference of another width": ("16", _narrow_reference),
    "foreign files in the run folder": ("is not a run of mmjax", _foreign_files),
    "no such labels": ("no labels at", lambda w, t: _whole(w, f"--truth={t}")),
    "labels that are none": (
        "labels",
        lambda w, t: _whole(w, f"--truth={_write(t / 'labels.parquet', b'shard,row')}"),
    ),
    "a wrong limit": ("poisoned:N", lambda w, t: _whole(w, "--fail_on=benign")),
    "no run to rescore": ("is not a run of mmjax", lambda w, t: ["rescore", str(t / "nowhere")]),
    "a run of another verb to rescore": (
        "is a run of fit-mapping",
        lambda w, t: ["rescore", str(w.mapping)],
    ),
    "a threshold of paper mode in robust mode": (
        "gamma_z=0.5 is a threshold of mode=paper",
        lambda w, t: _whole(w, "--config.stages.gamma_z=0.5"),
    ),
    "attack without input": ("nothing to poison", lambda w, t: ["attack"]),
    "attack of nothing": ("no such file", lambda w, t: ["attack", str(t / "nowhere")]),
    "too much poison": ("--i_understand", lambda w, t: ["attack", str(w.shards), "--rate=0.5"]),
    "no such template": (
        "nowhere",
        lambda w, t: ["attack", str(w.shards), f"--config.templates={t / 'nowhere'}"],
    ),
    "pack of nothing": ("nothing to pack", lambda w, t: ["pack"]),
    "pack of a foreign file": (
        "",
        lambda w, t: ["pack", _write(t / "x.bin", bytes(range(256)) * 9)],
    ),
    "fit on nothing": ("nothing to fit on", lambda w, t: ["fit-mapping"]),
    "fit on too little": (
        "at least",
        lambda w, t: [
            *["fit-mapping", str(write_tar(t / "x" / "few.tar", pair("a", 1) + pair("b", 2)))],
            *[f"--weights={w.weights}", "--kind=ridge"],
        ],
    ),
}


READ_FIRST = ("empty tar", "zero-byte tar", "fit on too little")
"""Only reading the data tells."""


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_one_line_and_exit_2(
    case: str, world: World, tmp_path: Path, run: Run
) -> None:
    says, make = REFUSED[case]
    inputs = tmp_path / "in"
    inputs.mkdir()
    arguments = make(world, inputs)
    out = tmp_path / "out"
    if not any(a.startswith("--out=") for a in arguments) and arguments[0] != "rescore":
        arguments = [*arguments, f"--out={out}"]
    ran = run(*arguments)
    assert ran.code == 2, ran
    assert len(ran.err.splitlines()) == 1, ran.err
    assert ran.err.startswith("mmjax: error: "), ran.err
    assert says in ran.err
    assert not ran.out
    assert not (inputs / "hacked").exists()
    if case not in READ_FIRST:
        assert not out.exists(), "a refusal before any work leaves no folder behind"
