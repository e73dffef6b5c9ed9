import numpy as np
import pytest

from mmjax.core.errors import ConfigError, WeightsError
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.options import StageConfig
from mmjax.scan.stages import VERDICTS, columns, score
from tests.oracles import correlation as oracle
from tests.scan import synthetic

ROBUST = StageConfig(chunk_rows=512)
N = 1_500


def seeds(count):
    """The first one always, the others with `-m slow`."""
    return [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, count))]


def rates(result, poisoned):
    flagged = result.scores.verdict == VERDICTS.index("poisoned")
    return np.mean(flagged[poisoned]), np.mean(flagged[~poisoned])


def run(config=ROBUST, shards=3, n=N, **kinds):
    image, text, poisoned = synthetic.pairs(n, **kinds)
    return score(synthetic.blocks(image, text, shards), synthetic.identity(), config), poisoned


@pytest.fixture(scope="module")
def poisoned_run():
    return run(seed=0, poison=30)


@pytest.mark.parametrize("seed", seeds(3))
@pytest.mark.parametrize("shuffled", [0.0, 0.02])
def test_poison_is_found_and_little_else(seed, shuffled):
    result, poisoned = run(n=3_000, seed=seed, poison=30, shuffled=shuffled)
    assert result.evidence
    tpr, fpr = rates(result, poisoned)
    assert tpr >= 0.99
    assert fpr <= 0.005


@pytest.mark.parametrize("seed", seeds(4))
@pytest.mark.parametrize("kinds", [{}, {"shuffled": 0.02}, {"popular": 0.3}])
def test_no_poison_no_evidence(seed, kinds):
    result, _ = run(seed=seed, **kinds)
    assert not result.evidence
    assert result.thresholds.poison is None
    assert not np.any(result.scores.verdict == VERDICTS.index("poisoned"))
    assert result.scores.poison_score.max() < 0.5
    assert np.unique(result.scores.poison_score).size > 1_000  # still a ranking


def test_shards_and_chunks_do_not_matter(poisoned_run):
    first, _ = poisoned_run
    again, _ = run(StageConfig(chunk_rows=77), shards=11, seed=0, poison=30)
    np.testing.assert_array_equal(again.scores.verdict, first.scores.verdict)
    np.testing.assert_allclose(
        again.scores.text_correlation, first.scores.text_correlation, atol=1e-5
    )


def test_score_and_verdict_agree(poisoned_run):
    result, _ = poisoned_run
    flagged = result.scores.verdict == VERDICTS.index("poisoned")
    np.testing.assert_array_equal(result.scores.poison_score > 0.5, flagged)
    assert result.scores.poison_score.min() >= 0
    assert result.scores.poison_score.max() <= 1


def test_histograms_count_everything(poisoned_run):
    result, _ = poisoned_run
    flagged = int(np.sum(result.scores.verdict == VERDICTS.index("poisoned")))
    for histogram in (result.consistency_histogram, result.correlation_histogram):
        assert histogram.counts.sum() == N
        assert histogram.flagged.sum() == flagged
        assert np.all(histogram.flagged <= histogram.counts)


def test_columns_are_those_of_the_verdict_files(poisoned_run):
    result, poisoned = poisoned_run
    tables = [columns(result, shard) for shard in range(3)]
    assert list(tables[0]) == [
        "sim_original",
        "sim_generated",
        "consistency",
        "gmm_component",
        "gmm_probability",
        "coarse",
        "text_correlation",
        "poison_score",
        "mismatch_probability",
        "group",
        "verdict",
        "is_poisoned",
    ]
    found = np.concatenate([t["is_poisoned"] for t in tables])
    assert found[poisoned].mean() >= 0.99
    assert set(np.concatenate([t["coarse"] for t in tables])) == {"benign", "seed", "suspicious"}


def test_pairs_that_are_merely_wrong_are_told_from_poison():
    image, text, poisoned = synthetic.pairs(N, seed=5, poison=30)
    rng = np.random.default_rng(5)
    wrong = rng.choice(np.flatnonzero(~poisoned), 90, replace=False)
    text[wrong] = text[np.roll(wrong, 1)]
    result = score(synthetic.blocks(image, text), synthetic.identity(), ROBUST)
    mismatched = result.scores.verdict == VERDICTS.index("mismatched")
    assert np.mean(mismatched[wrong]) > 0.8
    assert np.sum(mismatched & ~np.isin(np.arange(N), wrong)) <= 0.1 * np.sum(mismatched)
    assert rates(result, poisoned)[0] >= 0.99
    assert result.scores.mismatch_probability[wrong].mean() > 0.8
    assert result.scores.mismatch_probability[~poisoned].mean() < 0.1


@pytest.mark.parametrize(("poison", "share"), [(150, 0.1), (600, 0.4)])
def test_poison_may_be_much(poison, share):
    result, poisoned = run(seed=3, poison=poison)
    assert rates(result, poisoned)[0] >= 0.99
    assert rates(result, poisoned)[1] <= 0.005
    assert result.found.wrong_share == pytest.approx(share, abs=0.03)


def test_a_reference_that_says_too_much_does_not_decide():
    """One that the model has learned by heart calls every pair a wrong one, or none."""
    image, text, poisoned = synthetic.pairs(N, seed=6, poison=30, shuffled=0.1)
    blocks, mapping = synthetic.blocks(image, text), synthetic.identity()
    honest = score(blocks, mapping, ROBUST)
    for factor, constant in ((3.0, 6.0), (0.3, -6.0)):
        weights = np.append(factor * mapping.calibration.weights[:3], constant).astype(np.float32)
        spoilt = mapping._replace(calibration=mapping.calibration._replace(weights=weights))
        result = score(blocks, spoilt, ROBUST)
        assert rates(result, poisoned)[0] >= 0.99
        assert rates(result, poisoned)[1] <= 0.005
        assert np.mean(result.scores.verdict == honest.scores.verdict) > 0.98
    # a tenth of the captions was exchanged, within and among the topics
    assert 0.06 < honest.found.wrong_share < 0.14


def test_poisoned_pairs_tell_their_group(poisoned_run):
    result, _ = poisoned_run
    flagged = result.scores.verdict == VERDICTS.index("poisoned")
    np.testing.assert_array_equal(result.scores.group >= 0, flagged)
    sizes = [group.rows.size for group in result.found.groups]
    np.testing.assert_array_equal(np.bincount(result.scores.group[flagged]), sizes)


def test_paper_mode_knows_no_mismatch():
    result, _ = run(StageConfig(mode="paper", chunk_rows=512), seed=0, poison=30)
    assert np.isnan(result.scores.mismatch_probability).all()
    assert not np.any(result.scores.verdict == VERDICTS.index("mismatched"))
    assert np.all(result.scores.group == -1)


def test_a_lower_rate_flags_no_more(poisoned_run):
    result, poisoned = poisoned_run
    strict, _ = run(StageConfig(fdr=1e-4, chunk_rows=512), seed=0, poison=30)
    assert strict.thresholds.fdr == 1e-4
    assert rates(strict, poisoned)[0] < rates(result, poisoned)[0]
    assert result.thresholds.expected_fdr <= 0.1
    assert result.thresholds.poison > 0


def test_scope_suspicious_leaves_the_benign_set_alone():
    # gamma so large that the benign set takes in poison
    options = {"gamma": 0.999999, "components": 1, "chunk_rows": 512}
    kinds = {"seed": 0, "poison": 60, "shuffled": 0.1}
    everything, poisoned = run(StageConfig(**options), **kinds)
    literal, _ = run(StageConfig(**options, fine_scope="suspicious"), **kinds)
    benign = literal.scores.coarse == 1
    assert np.any(benign & poisoned)
    assert not np.any(literal.scores.verdict[benign] == VERDICTS.index("poisoned"))
    assert rates(everything, poisoned)[0] > rates(literal, poisoned)[0]
    assert literal.thresholds.expected_fdr <= 0.1
    assert not np.any(literal.scores.verdict[benign] == VERDICTS.index("mismatched"))
    group = literal.scores.group
    sizes = [each.rows.size for each in literal.found.groups]
    np.testing.assert_array_equal(np.bincount(group[group >= 0], minlength=len(sizes)), sizes)


def test_selection_by_posterior(poisoned_run):
    result, _ = poisoned_run
    other, _ = run(StageConfig(select="posterior", chunk_rows=512), seed=0, poison=30)
    assert other.thresholds.coverage is None
    assert np.any(other.scores.coarse != result.scores.coarse)


def test_benign_captions_of_the_topic_are_spared():
    image, text, poisoned = synthetic.pairs(N, seed=0, poison=30)
    # 15 aligned pairs whose captions are the poison's
    benign = np.flatnonzero(~poisoned)[:15]
    text[benign] = text[np.flatnonzero(poisoned)[:15]]
    image[benign] = text[benign] + 0.05 * np.random.default_rng(1).normal(size=(15, synthetic.D))
    image[benign] /= np.linalg.norm(image[benign], axis=1, keepdims=True)
    result = score(synthetic.blocks(image, text), synthetic.identity(), ROBUST)
    flagged = result.scores.verdict == VERDICTS.index("poisoned")
    assert flagged[poisoned].mean() >= 0.99
    assert not np.any(flagged[benign])


def test_two_targets_and_shuffled_pairs():
    image, text, poisoned = synthetic.pairs(3_000, seed=0, poison=60, shuffled=0.02)
    second = np.flatnonzero(poisoned)[:30]
    text[second] = synthetic.unit(text[second] - 2 * text[poisoned].mean(axis=0))
    result = score(synthetic.blocks(image, text), synthetic.identity(), ROBUST)
    tpr, fpr = rates(result, poisoned)
    assert tpr >= 0.95
    assert fpr <= 0.005


@pytest.mark.parametrize("seed", seeds(3))
def test_one_caption_on_many_images_is_not_called_poison(seed):
    image, text, _ = synthetic.pairs(N, seed=seed)
    rows = np.random.default_rng(seed).choice(N, 60, replace=False)
    text[rows] = text[rows[0]]
    result = score(synthetic.blocks(image, text), synthetic.identity(), ROBUST)
    assert not result.evidence
    assert result.found.around.wrong[rows].mean() > 10 * result.found.around.wrong.mean()


def test_paper_mode_is_equation_6_over_all_seeds():
    image, text, poisoned = synthetic.pairs(400, seed=0, poison=12)
    blocks = synthetic.blocks(image, text, dtype=np.float32)
    config = StageConfig(mode="paper", gamma_z=0.6, seeds=10, chunk_rows=128)
    result = score(blocks, synthetic.identity(), config)
    c = np.abs(1 - np.maximum(np.sum(image * text, axis=1), 0))
    seeds = np.argsort(-c, kind="stable")[:10]
    np.testing.assert_array_equal(np.sort(result.found.seeds), np.sort(seeds))
    others = np.setdiff1d(np.arange(400), seeds)
    np.testing.assert_allclose(
        result.scores.text_correlation[others],
        oracle.text_correlation(text[others], text[seeds]),
        atol=1e-5,
    )
    flagged = result.scores.verdict == VERDICTS.index("poisoned")
    assert flagged[seeds].all()  # D_p is poison by definition
    np.testing.assert_array_equal(flagged[others], result.scores.text_correlation[others] > 0.6)
    assert result.evidence
    assert poisoned[seeds].any()


def test_paper_mode_sets_its_threshold_by_rule_r1():
    image, text, poisoned = synthetic.pairs(N, seed=0, poison=60)
    config = StageConfig(mode="paper", chunk_rows=512)
    result = score(synthetic.blocks(image, text), synthetic.identity(), config)
    seeds = result.found.seeds
    loo = oracle.leave_one_out(text[seeds].astype(np.float64))
    wanted = np.quantile(loo, 0.05) - max(np.std(loo), 0.02)
    assert result.thresholds.gamma_z == pytest.approx(wanted, abs=1e-3)
    assert rates(result, poisoned)[0] >= 0.95


@pytest.mark.parametrize("seed", seeds(3))
def test_paper_mode_abstains_where_the_seeds_are_as_any_pairs(seed):
    image, text, _ = synthetic.pairs(3_000, seed=seed)
    config = StageConfig(mode="paper", chunk_rows=512)
    result = score(synthetic.blocks(image, text), synthetic.identity(), config)
    assert result.thresholds.gamma_z is None
    assert not result.evidence
    assert set(result.scores.verdict) == {VERDICTS.index("benign")}


def test_a_threshold_on_z_belongs_to_paper_mode():
    with pytest.raises(ConfigError, match="gamma_z=0.5 is a threshold of mode=paper"):
        score([], synthetic.identity(), StageConfig(gamma_z=0.5))


def test_robust_mode_wants_a_calibration():
    image, text, _ = synthetic.pairs(300, seed=0)
    mapping = synthetic.identity()._replace(calibration=None)
    with pytest.raises(WeightsError, match="fit it again"):
        score(synthetic.blocks(image, text), mapping, ROBUST)
    assert score(synthetic.blocks(image, text), mapping, StageConfig(mode="paper")).found


@pytest.mark.parametrize("mode", ["robust", "paper"])
@pytest.mark.parametrize("case", ["no shard", "empty", "one", "four", "equal", "none valid"])
def test_degenerate_sets_are_undetermined(case, mode):
    image, text, _ = synthetic.pairs(40, seed=0)
    n = {"empty": 0, "one": 1, "four": 4}.get(case, 40)
    image, text, valid = image[:n], text[:n], np.ones(n, bool)
    if case == "equal":
        image, text = np.repeat(image[:1], n, axis=0), np.repeat(text[:1], n, axis=0)
    if case == "none valid":
        valid[:] = False
    blocks = [] if case == "no shard" else [EmbeddingBlock(image, text, valid)]
    config = StageConfig(mode=mode, gamma_z=0.5 if mode == "paper" else "auto", chunk_rows=64)
    result = score(blocks, synthetic.identity(), config)
    assert not result.evidence
    assert len(result.warnings) == 1
    for name, values in result.scores._asdict().items():
        assert np.all(np.isfinite(values) | (name == "mismatch_probability"))
    if blocks:
        verdicts = set(columns(result, 0)["verdict"])
        assert verdicts == ({"undetermined"} if valid.any() else {""} if n else set())


@pytest.mark.parametrize("n", [5, 6, 20, 60])
def test_small_sets_are_judged_without_evidence(n):
    image, text, _ = synthetic.pairs(n, seed=0)
    result = score(synthetic.blocks(image, text, 2), synthetic.identity(), ROBUST)
    assert not result.evidence
    assert set(result.scores.verdict) == {VERDICTS.index("benign")}


def test_skipped_rows_have_no_verdict(poisoned_run):
    image, text, _ = synthetic.pairs(N, seed=0, poison=30)
    valid = np.ones(N, bool)
    valid[::100] = False
    image[~valid], text[~valid] = 0, 0
    result = score([EmbeddingBlock(image, text, valid)], synthetic.identity(), ROBUST)
    assert set(columns(result, 0)["verdict"][~valid]) == {""}
    assert set(columns(result, 0)["coarse"][~valid]) == {""}
    assert not np.any(columns(result, 0)["is_poisoned"][~valid])


def test_warnings_about_the_mapping():
    image, text, _ = synthetic.pairs(300, seed=0)
    poor = {
        "held_out_correlation": 0.02,
        "held_out_cosine": 0.2,
        "held_out_sim_original": 0.3,
    }
    mapping = synthetic.identity()._replace(diagnostics=poor)
    text_of = " ".join(score(synthetic.blocks(image, text), mapping, ROBUST).warnings)
    assert "hardly follows" in text_of
    assert "worse than the image itself" in text_of


def test_a_mapping_of_another_width_is_refused():
    image, text, _ = synthetic.pairs(30, seed=0)
    with pytest.raises(WeightsError, match="width"):
        score(synthetic.blocks(image, text), synthetic.identity(d=7), ROBUST)
