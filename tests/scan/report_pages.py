"""A report of everything, and a reader of pages, for the report's tests."""

import dataclasses
import math
import re
from html.parser import HTMLParser

import numpy as np

from mmjax.scan.report import ReportData, ReportPair, SkippedGroup, Truth
from mmjax.scan.report_captions import CaptionCluster, SharedWord
from mmjax.scan.report_figures import Histogram, Mixture, PrecisionRecall
from mmjax.scan.report_groups import (
    Findings,
    PoisonedGroup,
    RepeatedCaption,
    Row,
    Wording,
    WrongRow,
)
from mmjax.scan.report_images import mean_images
from mmjax.scan.report_text import LIMITS, SCORES


def findings(text: str = "a banana", picture: bytes | None = None) -> Findings:
    """Of everything one, `text` wherever it can stand."""
    row = Row(text, 7, text, text, picture)
    return Findings(
        groups=(PoisonedGroup(0, 41, 9, True, (Wording(text, 3),), (row,)),),
        group_count=1,
        repeated=(RepeatedCaption(CaptionCluster(text, 12, 0.003, 1), (row,)),),
        wrong=(WrongRow(row, 0.97),),
    )


def report(**changes) -> ReportData:
    """A report of everything, small."""
    generator = np.random.default_rng(0)
    edges = np.linspace(0, 1, 21)
    counts = np.arange(40, 0, -2)
    flagged = np.where(np.arange(20) > 15, np.minimum(counts, 3), 0)
    scores = dict.fromkeys(SCORES, 0.5)
    pair = ReportPair(1, "00000", 7, "000000007", "a banana", "poisoned", scores, None)
    pictures = generator.integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)
    data = ReportData(
        title="test.tar",
        outcome="poisoned",
        verdict="41 of 4,000 pairs look poisoned.",
        actions=["Nothing was deleted."],
        counts={"poisoned": 41, "benign": 3957, "skipped": 2},
        summary={"found.seeds": 50, "converged": True, "null": None},
        worst=[pair, pair._replace(rank=2, scores={**scores, "text_correlation": math.nan})],
        findings=findings("birthday cake"),
        drop="poisoned",
        mean_images=mean_images(pictures, pictures[::-1] // 2),
        c_histogram=Histogram(edges, counts, flagged),
        mixture=Mixture(np.array([0.1, 0.5]), np.array([0.01, 0.02]), np.array([0.8, 0.2])),
        cut=0.2,
        seed_threshold=0.8,
        z_histogram=Histogram(edges, counts, flagged),
        z_threshold=0.78,
        words=[SharedWord("banana", 40, 40 / 41, 0.0)],
        clusters=[CaptionCluster("a banana", 41, 1.0, 9)],
        skipped=[SkippedGroup("truncated_image", "ends early", 2, ("000000001", "000000002"))],
        remarks=[SkippedGroup("caption_truncated", "too long", 9, ("000000003",))],
        truth=Truth(
            40,
            1,
            0,
            3957,
            PrecisionRecall(np.array([0, 0.5, 1.0]), np.array([1.0, 1.0, 0.97])),
            {"auroc": 0.999, "auprc": math.nan},
        ),
        command="mmjax scan test.tar --out=run",
        config='{\n  "seed": 0\n}',
        environment={"Versions": "mmjax 0.1.0"},
        limits=LIMITS,
        warnings=["2 pairs were skipped."],
    )
    return dataclasses.replace(data, **changes)


class Page(HTMLParser):
    """Collects elements, attributes and text of a page; checks that tags are balanced."""

    VOID = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def values(self, name: str) -> list[str]:
        found = (attributes[name] for _, attributes in self.elements if name in attributes)
        return [value or "" for value in found]

    @property
    def all_text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def assert_inert(html: str) -> Page:
    """Nothing on the page runs, loads or leads away; ids are unique; text is visible text."""
    html.encode("utf-8")
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "link", "base", "form"}
    assert "foreignobject" not in tags
    names = {name for _, attributes in page.elements for name in attributes}
    assert not [name for name in names if name.startswith("on")]
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for target in page.values("href") + page.values("xlink:href"):
        assert target.startswith("#")
        assert target[1:] in ids
    assert all(re.match("data:image/(png|jpeg);base64,", s) for s in page.values("src"))
    assert re.findall(r"url\((?!#)|@import", html) == []
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028]", html)
    return page
