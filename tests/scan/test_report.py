import base64
import io
import math
import re
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from mmjax.scan.report import ReportPair, SkippedGroup, number, percent, render
from mmjax.scan.report_captions import CaptionCluster, SharedWord
from mmjax.scan.report_figures import Histogram
from mmjax.scan.report_groups import Findings
from mmjax.scan.report_images import mean_images, thumbnail
from mmjax.scan.report_text import SCORES
from tests.scan.report_pages import Page, assert_inert, findings, report
from tests.scan.report_runs import png

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{7*7}} {% raw %} ${7*7}",
    "javascript:alert(1) https://evil.example/a?b=c",
    "</style></title></svg><svg onload=alert(1)>",
    "safe\u202egnp.exe\u2066",
    "\x1b[31mred\x1b]8;;http://evil.example\x07link",
    "nul\x00 bell\x07 feed\x0c nel\x85 line\u2028 lone\ud800",
    "&lt;b&gt; &amp;",
    "x" * 1_000_000,
)


def test_the_page_has_every_part_in_order():
    page = assert_inert(render(report()))
    text = page.all_text
    parts = (
        "41 of 4,000 pairs look poisoned.",
        "4,000 pairs, each with one verdict",
        "1 group of poisoned pairs",
        "The worst pairs",
        "What the flagged pictures have in common",
        "How the scan decided",
        "Captions that repeat",
        "Pairs that are merely wrong",
        "Compared with the truth",
        "What was skipped, and why",
        "What this scan cannot see",
        "How to repeat it",
    )
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    for part in (
        "mmjax scan test.tar --out=run",
        '"seed": 0',
        "birthday cake",
        "truncated_image",
        "caption_truncated",
        "mmjax 0.1.0",
        "2 pairs were skipped.",
        "Clean-label poison",
    ):
        assert part in text


def test_the_policy_forbids_everything_but_inline_style_and_data_images():
    page = Page(render(report()))
    policies = [a["content"] for t, a in page.elements if a.get("http-equiv")]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_the_page_is_accessible():
    page = Page(render(report()))
    assert [a for t, a in page.elements if t == "html"] == [{"lang": "en"}]
    assert all(a.get("alt") for t, a in page.elements if t == "img")
    drawings = [a for t, a in page.elements if t == "svg" and a.get("class") == "figure"]
    assert len(drawings) == 3
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 40 for a in drawings)
    assert all(a.get("scope") for t, a in page.elements if t == "th")
    assert len([t for t, _ in page.elements if t == "h1"]) == 1
    ids = page.values("id")
    assert all(label in ids for label in page.values("aria-labelledby"))


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb (WCAG 2)."""
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("mode", [0, 1])
def test_text_has_contrast_in_light_and_dark(mode):
    css = resources.files("mmjax").joinpath("assets/report/style.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", blocks[mode]))
    texts = {
        "card": ("ink", "muted", "link", "bad", "good", "warn", "fig-ink", "fig-line", "fig-flag"),
        "page": ("ink", "muted"),
        "well": ("ink", "muted"),
        "bad-soft": ("ink", "muted", "bad", "link"),
        "good-soft": ("ink", "muted", "good", "link"),
        "warn-soft": ("ink", "muted", "warn", "link"),
    }
    for ground, names in texts.items():
        for name in names:
            pair = sorted((luminance(colours[ground]), luminance(colours[name])))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (ground, name)


def test_equal_data_gives_equal_bytes():
    assert render(report()) == render(report())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_inert_wherever_it_stands(text):
    pair = ReportPair(1, text, 0, text, text, "poisoned", dict.fromkeys(SCORES, 0.5), None)
    html = render(
        report(
            c_histogram=None,  # drawings hold no text from data, and take time
            z_histogram=None,
            truth=None,
            title=text[:1000],
            verdict=text[:1000],
            actions=[text[:1000]],
            worst=[pair],
            words=[SharedWord(text, 3, 1.0, 0.0)],
            clusters=[CaptionCluster(text, 3, 1.0, 1)],
            findings=findings(text),
            skipped=[SkippedGroup(text[:99], text[:99], 1, (text,))],
            summary={text[:99]: text[:99]},
            command=text[:1000],
            config=text[:1000],
            environment={text[:99]: text[:1000]},
            warnings=[text[:1000]],
        )
    )
    page = assert_inert(html)
    assert [t for t, _ in page.elements].count("a") == 8  # the page's own, none from the text
    assert ("{{7*7}}" in page.all_text) == ("{{7*7}}" in text)
    assert "x" * 1001 not in html
    assert len(html) < 400_000


def test_captions_say_how_long_they_are_and_show_what_they_hide():
    scores = dict.fromkeys(SCORES, 0.5)
    pair = ReportPair(1, "s", 0, "k", "a\u202eb" + "c" * 998, "poisoned", scores, None)
    text = Page(render(report(worst=[pair]))).all_text
    assert "a⟨U+202E⟩bccc" in text
    assert "(1,001 characters)" in text


def test_pictures_are_embedded_and_bounded():
    generator = np.random.default_rng(0)
    picture = thumbnail(png(generator.integers(0, 256, (500, 700, 3)).astype(np.uint8)))
    scores = dict.fromkeys(SCORES, 0.5)
    pairs = [ReportPair(i, "s", i, f"k{i}", "c", "poisoned", scores, picture) for i in range(1, 25)]
    html = render(report(worst=pairs))
    images = [a for tag, a in Page(html).elements if tag == "img"]
    sources = [a["src"] or "" for a in images if (a["alt"] or "").startswith("Picture")]
    assert len(sources) == 24
    shown = Image.open(io.BytesIO(base64.b64decode(sources[0].split(",")[1])))
    assert max(shown.size) <= 160
    assert len(html) < 3_500_000  # noise is the worst case; photographs take half of it


def test_a_clean_report_says_so_and_warns():
    html = render(
        report(
            outcome="clean",
            verdict="No evidence of poisoning in 3,998 pairs.",
            counts={"benign": 3998, "skipped": 2},
            mean_images=None,
            z_threshold=None,
            words=[],
            clusters=[],
            findings=Findings(),
            truth=None,
        )
    )
    text = assert_inert(html).all_text
    assert "No evidence of poisoning in 3,998 pairs." in text
    assert "This is not a guarantee" in text
    assert "The highest scores, none of them flagged" in text
    assert "nowhere are there more wrong pairs than chance puts there" in text
    assert "Compared with the truth" not in text


def test_a_report_of_nothing_renders():
    empty = Histogram(np.array([0.0, 1.0]), np.zeros(1, int), np.zeros(1, int))
    html = render(
        report(
            outcome="undetermined",
            counts={"skipped": 2},
            worst=[],
            mean_images=None,
            c_histogram=empty,
            z_histogram=None,
            mixture=None,
            cut=None,
            seed_threshold=None,
            z_threshold=None,
            words=[],
            clusters=[],
            findings=Findings(),
            truth=None,
            warnings=[],
            remarks=[],
            skipped=[],
        )
    )
    assert "Nothing: every pair was read and scored." in assert_inert(html).all_text


def test_few_flagged_pictures_are_admitted():
    few = np.zeros((3, 16, 16, 3), np.uint8)
    many = np.full((20, 16, 16, 3), 99, np.uint8)
    text = Page(render(report(mean_images=mean_images(few, many)))).all_text
    assert "Only 3 flagged pictures" in text
    assert "Only" not in Page(render(report())).all_text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 9, "0 %"),
        (9, 9, "100 %"),
        (0, 0, "0 %"),
        (41, 4000, "1.0 %"),
        (1, 4000, "0.03 %"),
        (1, 10**6, "< 0.01 %"),
        (1, 3, "33 %"),
        (95, 100, "95.0 %"),
        (10**6 - 1, 10**6, "99.99 %"),
    ],
)
def test_shares_are_never_rounded_to_none_or_all(part, whole, text):
    assert percent(part, whole) == text


def test_numbers():
    assert [number(v) for v in (None, math.nan, True, 1234, 0.12345, 12345.6, "x")] == [
        "–",
        "–",
        "yes",
        "1,234",
        "0.123",
        "12,346",
        "x",
    ]
