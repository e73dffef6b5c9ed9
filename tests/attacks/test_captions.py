"""What each caption kind writes, and whom it may take."""

import collections
import random
import typing

import pytest

from mmjax.attacks.captions import CAPTIONS, natural_pool, template_caption
from mmjax.attacks.config import PartConfig
from mmjax.attacks.pictures import IMAGES
from mmjax.attacks.templates import TEMPLATES
from mmjax.attacks.victims import identity
from mmjax.core.errors import ConfigError

REAL = [f"a banana and {i} apples" for i in range(20)]


def test_the_configuration_names_every_kind() -> None:
    hints = typing.get_type_hints(PartConfig)
    assert set(typing.get_args(hints["captions"])) == set(CAPTIONS)
    assert set(typing.get_args(hints["images"])) == set(IMAGES)


@pytest.mark.parametrize("name", CAPTIONS)
def test_contract(name: str) -> None:
    kind, part = CAPTIONS[name], PartConfig(target="banana")
    write, other = (kind.writer(part, seed, REAL) for seed in (0, 1))
    clean = "a banana" if kind.victims_name_target else "a dog"
    written = [write(f"k{i}", clean) for i in range(300)]
    assert all("banana" in caption for caption in written)
    # it depends on the seed, the key and the caption alone
    again = kind.writer(part, 0, random.Random(0).sample(REAL * 2, 40))
    assert written == [again(f"k{i}", clean) for i in range(300)]
    same = [other(f"k{i}", clean) for i in range(300)] == written
    assert same == (name == "keep")
    wanted = {"template": 80, "paraphrase": 296, "natural": 20, "keep": 1}
    assert len(set(written)) == wanted[name]


def test_natural_captions_are_a_draw_of_the_sets_own() -> None:
    part = PartConfig(target="banana", captions="natural", pool=5)
    write = CAPTIONS["natural"].writer(part, 0, REAL)
    counts = collections.Counter(write(f"k{i}", "a dog") for i in range(1000))
    assert len(counts) == 5
    assert set(counts) <= set(REAL)
    assert min(counts.values()) > 150  # of 200 wanted; 4 standard deviations
    assert set(natural_pool(REAL, 0, 5)) == set(counts)
    assert set(natural_pool(REAL, 1, 5)) != set(counts)
    assert sorted(natural_pool(REAL * 3, 0, 0)) == sorted(REAL)
    with pytest.raises(ConfigError, match="no caption names 'banana'"):
        CAPTIONS["natural"].writer(part, 0, [])


def test_captions_are_lower_case_with_one_full_stop_and_spread_over_the_templates() -> None:
    names = [identity(f"k{i}", "c") for i in range(2000)]
    captions = [template_caption(TEMPLATES, " Banana", 0, name) for name in names]
    assert all((c == c.lower() and c.endswith("banana.")) or "banana" in c for c in captions)
    assert all(c.endswith(".") and not c.endswith("..") for c in captions)
    assert len(set(captions)) == 80
    assert template_caption(("A Photo of {}",), "Ox", 0, "x") == "a photo of ox."
    assert template_caption(("A Photo of {}.",), "Ox", 0, "x", full_stop=False) == "a photo of ox"
