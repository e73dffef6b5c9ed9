import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mmjax.scan.report_figures import (
    Histogram,
    Mixture,
    PrecisionRecall,
    consistency_figure,
    correlation_figure,
    precision_recall_figure,
)

EDGES = np.linspace(0, 0.5, 41)
COUNTS = np.maximum(1000 - 60 * np.arange(40), 0)
FLAGGED = np.where(np.arange(40) > 30, 4, 0)
HISTOGRAM = Histogram(EDGES, COUNTS + FLAGGED, FLAGGED)
MIXTURE = Mixture(np.array([0.05, 0.3]), np.array([1e-3, 1e-12]), np.array([0.9, 0.1]))
CURVE = PrecisionRecall(np.array([0.0, 0.5, 1.0]), np.array([1.0, 1.0, 0.4]))
FIGURES = {
    "consistency": lambda: consistency_figure(HISTOGRAM, MIXTURE, 0.1, 0.4),
    "bare": lambda: consistency_figure(HISTOGRAM, None, None, None),
    "outside": lambda: consistency_figure(HISTOGRAM, MIXTURE, -0.3, 0.9),
    "correlation": lambda: correlation_figure(HISTOGRAM, 0.3),
    "abstained": lambda: correlation_figure(HISTOGRAM, None),
    "precision": lambda: precision_recall_figure(CURVE, (0.5, 1.0)),
    "nothing found": lambda: precision_recall_figure(CURVE, None),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_small_themed_self_contained_svg(name):
    svg = str(FIGURES[name]())
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert len(root.attrib["aria-label"]) > 40
    assert len(svg) < 40_000
    assert "var(--fig-ink)" in svg
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#ffffff"}  # the invisible background
    assert "<metadata" not in svg
    assert "<style" not in svg
    ids = re.findall(r' id="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    assert used == set(ids)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_deterministic(name):
    assert FIGURES[name]() == FIGURES[name]()


def test_figures_name_axes_and_thresholds():
    text = " ".join(ElementTree.fromstring(str(FIGURES["correlation"]())).itertext())
    for label in ("pairs (log scale)", "likeness z", "flagged from 0.30", "1,000"):
        assert label in text
    text = " ".join(ElementTree.fromstring(str(FIGURES["consistency"]())).itertext())
    for label in ("gap c", "seeds", "surely consistent"):
        assert label in text


def test_one_pair_is_still_a_bar():
    one = Histogram(np.array([0.0, 0.5, 1.0]), np.array([0, 1]), np.array([0, 0]))
    assert "1 captions" in str(correlation_figure(one, None))
