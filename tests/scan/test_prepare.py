"""What a scan needs is checked before anything is computed; refusals are in tests/e2e."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmjax.core.errors import ConfigError, InputError, WeightsError
from mmjax.data.embeddings import write_embeddings
from mmjax.scan.config import FitConfig, ScanConfig
from mmjax.scan.mapping import Mapping, save_mapping
from mmjax.scan.options import MappingConfig
from mmjax.scan.prepare import EMBEDDINGS, open_inputs, prepare_fit, prepare_scan, read_labels
from tests.data import faults

RIDGE = MappingConfig(kind="ridge")


def written(folder: Path, width: int = 4) -> str:
    rows = np.eye(8, width, dtype=np.float32) + 0.1
    write_embeddings(folder, rows, rows, captions=["x"] * 8, image_paths=["y"] * 8)
    return str(folder)


def ridge(folder: Path, *, dim: int = 4, fingerprint: str = EMBEDDINGS, fill: float = 1.0) -> str:
    zero = np.zeros(dim, np.float32)
    params = {"kernel": fill * np.eye(dim, dtype=np.float32), "before": zero, "after": zero}
    save_mapping(folder, Mapping("ridge", dim, 8, params, fingerprint, {}, {}, {}))
    return str(folder)


def test_facts_tell_of_all_that_a_resumed_run_must_share(tmp_path: Path) -> None:
    given = written(tmp_path / "in")
    facts = []
    for fill in (1.0, 2.0):
        mapping = ridge(tmp_path / "mapping", fill=fill)
        prepared = prepare_scan(ScanConfig(inputs=(given,), mapping=mapping))
        assert prepared.reference is None
        assert prepared.mapping is not None
        facts.append(prepared.facts)
    assert facts[0].keys() == {"weights", "tokenizer", "mapping"}
    assert facts[0]["weights"] == facts[1]["weights"] == EMBEDDINGS
    assert facts[0]["mapping"] != facts[1]["mapping"]


def test_a_mapping_must_fit_what_is_scanned(tmp_path: Path) -> None:
    given = written(tmp_path / "in")
    other = ridge(tmp_path / "other", fingerprint="12ab" * 16)
    with pytest.raises(WeightsError, match=r"other weights \(12ab12ab12ab\) than .*\(embeddings\)"):
        prepare_scan(ScanConfig(inputs=(given,), mapping=other))
    wide = ridge(tmp_path / "wide", dim=8)
    with pytest.raises(WeightsError, match="width 8, these have 4"):
        prepare_scan(ScanConfig(inputs=(given,), mapping=wide))


def test_a_reference_is_opened_with_the_input(tmp_path: Path) -> None:
    given, reference = written(tmp_path / "in"), written(tmp_path / "reference")
    prepared = prepare_scan(ScanConfig(inputs=(given,), reference=(reference,), fit=RIDGE))
    assert prepared.mapping is None
    assert prepared.reference is not None
    assert prepared.reference.location == reference
    assert prepare_fit(FitConfig(inputs=(given,), fit=RIDGE)).facts["weights"] == EMBEDDINGS
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        prepare_fit(FitConfig(inputs=(given,)))


def test_what_is_scanned_is_not_its_own_reference(tmp_path: Path) -> None:
    given = written(tmp_path / "in")
    config = ScanConfig(inputs=(given,), reference=(f"{given}/../in",), fit=RIDGE)
    with pytest.raises(ConfigError, match="is scanned and is the reference too"):
        prepare_scan(config)
    folder = faults.write_photo_folder(tmp_path / "photos")
    (folder / "captions.tsv").write_text("".join(f"{i}.png\ta cat\n" for i in range(4)))
    (folder / "splits.tsv").write_text("0.png\ta\n1.png\ta\n2.png\tb\n3.png\tc\n")
    split = ScanConfig(
        inputs=(str(folder),),
        split="a,b",
        reference=(str(folder),),
        reference_split="c",
        weights="demo",
        fit=RIDGE,
    )
    prepared = prepare_scan(split)
    assert prepared.reference is not None
    with pytest.raises(ConfigError, match="is scanned and is the reference too"):
        prepare_scan(dataclasses.replace(split, reference_split="b,c"))
    with pytest.raises(ConfigError, match="is scanned and is the reference too"):
        prepare_scan(dataclasses.replace(split, split=""))


def test_what_is_wrong_with_the_reference_names_its_own_options(tmp_path: Path) -> None:
    given = written(tmp_path / "in")
    links = tmp_path / "x.csv"
    links.write_text("url,caption\nhttps://a/b.jpg,a dog\n")
    with pytest.raises(InputError) as refused:
        prepare_scan(ScanConfig(inputs=(given,), reference=(str(links),), fit=RIDGE))
    told = str(refused.value)
    assert told.startswith("the reference: ")
    assert "img2dataset --url_list" in told
    assert "--input_format=csv" in told, "img2dataset's own option"
    assert "--config.reference_columns" in told


def test_embeddings_have_no_splits(tmp_path: Path) -> None:
    given = written(tmp_path / "in")
    with pytest.raises(InputError, match="no splits"):
        open_inputs((given,), input_format="auto", split="val", columns="", max_member_bytes=1)


def test_labels_are_a_table_of_labels(tmp_path: Path) -> None:
    assert read_labels(None) is None
    file = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"shard": ["a"], "ordinal": [0]}), file)
    with pytest.raises(InputError, match="has no column is_poisoned"):
        read_labels(file)
    table = pa.table({"shard": ["a"], "ordinal": [0], "is_poisoned": [True], "key": ["k"]})
    pq.write_table(table, file)
    read = read_labels(file)
    assert read is not None
    assert read.equals(table)
