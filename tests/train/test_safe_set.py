import numpy as np
import pytest
from scipy.stats import norm

from mmjax.train.defence import SafeClipConfig
from mmjax.train.safe_set import safe_pairs

RNG = np.random.default_rng(0)
RISKY = RNG.random(20_000) < 0.4
COSINES = np.float32(np.where(RISKY, RNG.normal(0.1, 0.05, 20_000), RNG.normal(0.3, 0.04, 20_000)))
CONFIG = SafeClipConfig(growth=0.05, largest=0.65)


def test_as_many_are_safe_as_surely_belong_to_the_upper_gaussian():
    safe = safe_pairs([COSINES], CONFIG, grown=0)
    upper, lower = 0.6 * norm.pdf(COSINES, 0.3, 0.04), 0.4 * norm.pdf(COSINES, 0.1, 0.05)
    sure = (upper / (upper + lower) >= 0.9) & (COSINES > 0.2)
    assert safe.mean() == pytest.approx(sure.mean(), abs=0.01)
    assert COSINES[safe].min() > COSINES[~safe].max()


def test_the_far_tail_of_a_wide_upper_gaussian_is_not_safe():
    """A wide component outweighs a narrow one on both sides of it."""
    narrow = RNG.normal(0.1, 0.01, 5_000)
    wide = RNG.normal(0.2, 0.08, 5_000)
    cosines = np.float32(np.concatenate([narrow, wide]))
    safe = safe_pairs([cosines], SafeClipConfig(), grown=0)
    assert safe.mean() <= np.mean(cosines > 0.12)


@pytest.mark.parametrize(("grown", "share"), [(1, 0.05), (3, None)])
def test_it_grows_by_the_newest_cosines_up_to_its_bound(grown, share):
    first = safe_pairs([COSINES], CONFIG, grown=0).mean()
    newest = COSINES[::-1].copy()
    safe = safe_pairs([COSINES, *[newest] * grown], CONFIG, grown=grown)
    wanted = CONFIG.largest if share is None else first + share
    assert safe.mean() == pytest.approx(wanted, abs=1e-4)
    assert newest[safe].min() >= newest[~safe].max()
