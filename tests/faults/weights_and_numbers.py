"""F27-F36: what weights, tokenizers, embeddings and sets of pairs can have wrong."""

import json
import pickle  # noqa: TID251 - made here, for mmjax never to read
import shutil
import struct
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.data.faults import pair, plain, write_tar
from tests.e2e.conftest import embeddings
from tests.faults.case import GOOD, Case, fault, good

RIDGE = "--config.fit.kind=ridge"


class _Executes:
    """Leaves the canary behind when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


def _model(case: Case) -> Path:
    shutil.rmtree(case.inputs, ignore_errors=True)
    return Path(shutil.copytree(case.world.model, case.inputs / "model"))


def _refuse_weights(case: Case, model: Path, says: str) -> None:
    given = [f"--weights=mmjax-dir:{model}", f"--mapping={case.world.mapping}"]
    case.refuse("scan", case.world.shards, *given, f"--out={case.out}", says=says)
    assert not case.out.exists()


@fault(
    "F27",
    "a pickle under the name of weights, of an array, of a member",
    "refused or ignored; never unpickled",
)
def pickles(case: Case) -> None:
    model = _model(case)
    evil = pickle.dumps(_Executes(case.canary))
    (model / "model.safetensors").write_bytes(evil)
    _refuse_weights(case, model, says="model.safetensors")
    folder = embeddings(case.inputs / "emb", 60, seed=1)
    np.save(folder / "img_emb" / "img_emb_0.npy", np.array([_Executes(case.canary)]), True)
    given = [f"--reference={folder}", RIDGE, f"--out={case.out}"]
    case.refuse("scan", folder, *given, says="no readable array")
    rows = case.scan_members([plain("evil.pkl", evil), plain("evil.pyd", evil)], rows=1)
    assert rows["evil"]["status"] == "missing_image"


@fault(
    "F28",
    "safetensors cut short, with an endless header, wrong or missing arrays",
    "exit 2 naming the file or the first arrays",
)
def damaged_weights(case: Case) -> None:
    model = _model(case)
    file = model / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    _refuse_weights(case, model, says="model.safetensors")
    file.write_bytes(struct.pack("<Q", 2**30) + whole[8:])
    _refuse_weights(case, model, says="model.safetensors")
    tensors = load_file(case.world.model / "model.safetensors")
    first = min(tensors)
    save_file({name: value for name, value in tensors.items() if name != first}, file)
    _refuse_weights(case, model, says=first)
    save_file(tensors | {first: np.zeros((1, 2, 3), np.float32)}, file)
    _refuse_weights(case, model, says=first)


@fault("F29", "a tokenizer that is not there, is empty, or is of another size", "exit 2")
def tokenizers(case: Case) -> None:
    model = _model(case)
    known = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").unlink()
    _refuse_weights(case, model, says="--tokenizer")
    known["model"]["vocab"] = {}
    (model / "tokenizer.json").write_text(json.dumps(known))
    _refuse_weights(case, model, says="tokenizer.json")


@fault(
    "F30",
    "embeddings with NaN, infinity, zeros, or of another width",
    "`nonfinite_embedding` rows; another width: exit 2",
    slow=True,
)
def bad_numbers(case: Case) -> None:
    folder = embeddings(case.inputs / "emb", 400, seed=1)
    reference = embeddings(case.inputs / "reference", 400, seed=2)
    file = folder / "img_emb" / "img_emb_0.npy"
    rows = np.load(file)
    rows[3, 5], rows[9, 0], rows[12] = np.nan, -np.inf, 0
    np.save(file, rows)
    given = [f"--reference={reference}", RIDGE, f"--out={case.out}", "--json"]
    ran = case.run("scan", folder, *given)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["statuses"] == {"nonfinite_embedding": 3, "ok": 397}
    shutil.rmtree(case.out)
    for part in reference.glob("*_emb/*.npy"):
        np.save(part, np.load(part)[:, :16])
    case.refuse("scan", folder, *given, says="16")


@fault(
    "F31",
    "a set of one pair, or of equal pairs: no mixture can be fitted",
    "`undetermined`, with the reason; never `all clean`",
)
def degenerate(case: Case) -> None:
    tar = write_tar(case.inputs / "00000.tar", good(1))
    found = case.scan(tar, rows=1)
    assert found["counts"] == {"undetermined": 1}
    assert found["verdict"].startswith("undetermined")
    shutil.rmtree(case.out)
    write_tar(tar, [m for i in range(30) for m in pair(f"{i}", 1, b"a cat")])
    found = case.scan(tar, rows=30)
    assert found["counts"] == {"undetermined": 30}
    assert any("every pair has the same consistency" in w for w in found["warnings"])


def _embedded(case: Case, poison: int) -> dict:
    folder = embeddings(case.inputs / f"emb{poison}", 1000, seed=3, poison=poison)
    reference = embeddings(case.inputs / "reference", 1000, seed=2)
    shutil.rmtree(case.out, ignore_errors=True)
    ran = case.run("scan", folder, f"--reference={reference}", RIDGE, f"--out={case.out}", "--json")
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    assert sum(summary["counts"].values()) == summary["total"] == 1000
    return summary


@fault("F32", "a set without poison", "`no evidence of poisoning`; nothing is flagged", slow=True)
def clean(case: Case) -> None:
    found = _embedded(case, poison=0)
    assert found["counts"].get("poisoned", 0) == 0
    assert found["verdict"] == "no evidence of poisoning"


@fault(
    "F33",
    "half of the pairs poisoned, or all",
    "no crash, every row judged; so much poison is beyond what the method was made for",
    slow=True,
)
def much_poison(case: Case) -> None:
    for poison in (500, 1000):
        found = _embedded(case, poison)
        assert set(found["counts"]) <= {"benign", "poisoned", "mismatched", "undetermined"}


@fault("F34", "a truth without one poisoned pair", "rates without a denominator are null")
def no_positives(case: Case) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tar = write_tar(case.inputs / "00000.tar", good())
    labels = {
        "shard": ["00000"] * GOOD,
        "ordinal": list(range(GOOD)),
        "is_poisoned": [False] * GOOD,
    }
    pq.write_table(pa.table(labels), case.inputs / "labels.parquet")
    found = case.scan(tar, f"--truth={case.inputs / 'labels.parquet'}", rows=GOOD)
    assert found["truth"]["true_positive_rate"] is None
    assert found["truth"]["poisoned"] == 0


@fault(
    "F35",
    "a training that diverges",
    "steps that are not finite change nothing; ten in a row end the run with exit 2, the last good "
    "state kept",
    slow=True,
)
def diverges(case: Case) -> None:
    given = ["--config=train/demo", f"--weights={case.world.weights}", "--steps=30"]
    sizes = ["--config.data.scenes=16", "--config.data.heldout_scenes=0", "--config.batch_size=8"]
    wild = ["--config.optimizer.learning_rate=1e38", "--config.optimizer.warmup=0"]
    ran = case.run("train", *given, *sizes, *wild, f"--out={case.out}")
    assert ran.code == 2, ran.out
    assert "lower learning_rate" in ran.last
    assert [folder for folder in (case.out / "checkpoints").iterdir() if folder.name.isdigit()]
    assert f"the last good one, is mmjax-dir:{case.out / 'last_good'}" in ran.err
    calm = ["--config=train/demo", "--steps=2", *sizes, f"--out={case.out}"]
    case.refuse("train", *calm, f"--weights={case.world.weights}", says="or add --overwrite")
    kept = shutil.copytree(case.out / "last_good", case.inputs / "kept")
    ran = case.run("train", *calm, f"--weights=mmjax-dir:{kept}", "--overwrite")
    assert ran.code == 0, ran.err
    assert not (case.out / "last_good").exists()


@fault(
    "F36",
    "sets that are no multiple of the batch, smaller than it, batches of one",
    "the last batch is padded and masked; verdicts do not depend on the batch size",
)
def batches(case: Case) -> None:
    tar = write_tar(case.inputs / "00000.tar", good())
    verdicts = []
    for size in (1, 7, 64):
        shutil.rmtree(case.out, ignore_errors=True)
        found = case.scan(tar, f"--batch_size={size}", rows=GOOD)
        verdicts.append([row["verdict"] for row in found["rows"]])
    assert verdicts[0] == verdicts[1] == verdicts[2]
