import json

import numpy as np
import pytest

from mmjax.core.errors import InputError
from mmjax.core.types import STATUSES
from mmjax.scan.report import render
from mmjax.scan.report_data import report_data
from mmjax.scan.report_table import FineHistogram
from tests.scan.report_pages import assert_inert
from tests.scan.report_runs import SHARDS, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "poisoned")


@pytest.fixture(scope="module")
def data(run):
    return report_data(run.folder, run.source, run.labels)


def test_counts_add_up_to_all_rows(data):
    assert data.counts == {"poisoned": 18, "benign": 98, "skipped": 4}
    assert data.outcome == "poisoned"
    assert data.c_histogram.counts.sum() == 116
    assert data.c_histogram.flagged.sum() == data.z_histogram.flagged.sum() == 18


def test_the_verdict_names_word_and_mark(data):
    assert data.verdict == (
        "18 of 120 pairs look poisoned: all of them say “banana”, "
        "and their pictures share a mark at the lower right corner."
    )


def test_the_worst_pairs_come_first_with_their_pictures(data):
    scores = [pair.scores["poison_score"] for pair in data.worst]
    assert scores == sorted(scores, reverse=True)
    assert [pair.rank for pair in data.worst] == list(range(1, 19))
    assert all(pair.verdict == "poisoned" and pair.image_png for pair in data.worst)
    assert all(pair.key == f"{pair.shard}{pair.ordinal:04d}" for pair in data.worst)


def test_thresholds_and_mixture_are_read_back(data):
    assert data.cut == pytest.approx(0.09)
    assert data.z_threshold == pytest.approx(0.6)
    assert data.seed_threshold == pytest.approx(0.4, abs=1e-6)
    np.testing.assert_allclose(data.mixture.weights, [0.7, 0.3])


def test_figures_of_the_stages_come_in_reading_order(data):
    assert list(data.summary) == [
        "found.seeds",
        "found.null_test.observed",
        "found.null_test.quantile99",
        "thresholds.coverage",
        "thresholds.gamma_z",
        "mapping.kind",
        "mapping.diagnostics.held_out_cosine",
    ]


def test_the_command_can_be_pasted_into_a_shell(data):
    assert data.command == "mmjax scan '{00000..00001}.tar' --out=run"


def test_captions_are_grouped(data):
    assert data.words[0].word == "banana"
    assert data.clusters[0].pairs == 18
    assert data.clusters[0].distinct == 3


def test_skipped_rows_have_reason_and_keys(data):
    assert {group.status: group.pairs for group in data.skipped} == {
        "truncated_image": 2,
        "missing_caption": 2,
    }
    assert data.skipped[0].meaning == STATUSES[data.skipped[0].status]
    assert data.skipped[0].keys == ("000000058", "000010058")
    assert [(group.status, group.pairs) for group in data.remarks] == [("caption_truncated", 2)]


def test_groups_have_pictures(data):
    (group,) = data.findings.groups
    assert (group.pairs, len(group.rows)) == (18, 6)
    assert all(row.jpeg and row.jpeg.startswith(b"\xff\xd8") for row in group.rows)


def test_truth_is_compared(data):
    truth = data.truth
    assert truth[:4] == (18, 0, 0, 98)
    for name in ("auroc", "auprc", "seed_purity"):
        assert truth.metrics[name] == pytest.approx(1)


def test_the_page_is_inert_and_deterministic(run, data):
    html = render(data)
    assert_inert(html)
    assert html == render(report_data(run.folder, run.source, run.labels))


@pytest.mark.parametrize("drop", ["poisoned", "mismatched"])
@pytest.mark.parametrize("verb", ["scan", "rescore"])
def test_what_was_dropped_is_read_from_the_configuration(tmp_path, verb, drop):
    config = {"stages": {"drop": drop}} if verb == "scan" else {"stages": None, "drop": drop}
    wrong = {"verdict": "mismatched", "mismatch_probability": 0.9}
    run = make_run(tmp_path / "run", config=config, changes={("00000", 40): wrong}, verb=verb)
    (run.folder / "clean").mkdir()
    data = report_data(run.folder)
    kept = " flagged pairs." if drop == "poisoned" else " flagged and merely wrong pairs."
    assert data.drop == drop
    assert data.actions[0].endswith(f"the folder “clean” holds a copy without the{kept}")
    assert [pair.row.place for pair in data.findings.wrong] == [("00000", 40)]


def test_without_a_source_there_are_no_pictures(run):
    data = report_data(run.folder)
    assert data.mean_images is None
    assert data.truth is None
    assert all(pair.image_png is None for pair in data.worst)
    assert "no picture at hand" in render(data)


def test_a_source_that_is_gone_gives_no_pictures(run):
    def gone(shard):
        raise InputError(f"{shard.path} is gone")

    data = report_data(run.folder, run.source._replace(open_shard=gone))
    assert data.mean_images is None


def test_no_evidence(tmp_path):
    run = make_run(tmp_path / "clean", poisoned=False)
    data = report_data(run.folder, run.source)
    assert data.outcome == "clean"
    assert data.verdict == "No evidence of poisoning in 116 pairs."
    assert data.z_threshold is None
    assert data.mean_images is None
    assert len(data.worst) == 24
    review = data.findings.repeated
    assert [entry.cluster.pairs for entry in review] == [6, 6, 6]
    assert review[0].cluster.exemplar == "a banana on plate 0"
    assert all(len(entry.rows) == 6 and entry.rows[0].jpeg for entry in review)
    assert data.findings.groups == ()
    assert_inert(render(data))


def test_hostile_captions_survive_the_way_through_parquet(tmp_path):
    captions = {0: "<script>alert(1)</script>", 1: "a\u202eb\x1b[0m", 2: "c" * 1_000_000}
    run = make_run(tmp_path / "hostile", captions=captions)
    html = render(report_data(run.folder))
    assert_inert(html)
    assert "&lt;script&gt;alert(1)" in html
    assert "a⟨U+202E⟩b⟨U+001B⟩[0m" in html
    assert len(html) < 400_000


def test_labels_that_do_not_fit_are_refused(run):
    with pytest.raises(InputError, match="lack 60 of 120 scanned rows, first 00001 row 0"):
        report_data(run.folder, None, run.labels.slice(0, 60))


@pytest.mark.parametrize("name", ["run.json", "summary.json"])
def test_an_unfinished_run_is_refused(tmp_path, name):
    run = make_run(tmp_path / "run")
    (run.folder / name).unlink()
    with pytest.raises(InputError, match=name):
        report_data(run.folder)


def test_a_run_without_verdicts_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    for shard in SHARDS:
        (run.folder / "verdicts" / f"{shard}.parquet").unlink()
    with pytest.raises(InputError, match="holds no verdict tables"):
        report_data(run.folder)


def test_warnings_of_the_run_come_first(tmp_path):
    run = make_run(tmp_path / "run")
    (run.folder / "summary.json").write_text(json.dumps({"warnings": ["the mixture stopped"]}))
    data = report_data(run.folder)
    assert data.warnings[0] == "the mixture stopped"
    assert any("few" in warning for warning in data.warnings)


def test_shown_bins_keep_every_count():
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(0.1, 0.05, 5000), [np.nan, -3.0, 0.9]])
    flagged = values > 0.2
    fine = FineHistogram(-1.0, 1.0)
    for part in range(3):
        fine.add(values[part::3], flagged[part::3])
    shown = fine.shown()
    assert shown.counts.sum() == 5002
    assert shown.flagged.sum() == flagged.sum()
    assert shown.edges.size - 1 == shown.counts.size <= 80
    assert FineHistogram(0.0, 1.0).shown() is None
