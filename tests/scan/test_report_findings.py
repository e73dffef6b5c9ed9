import base64
import io

import numpy as np
import pytest
from PIL import Image

from mmjax.scan.report import render
from mmjax.scan.report_groups import MOST_GROUPS, MOST_PICTURES, MOST_WRONG, Findings
from mmjax.scan.report_images import MINIATURE_SIDE, miniature, thumbnail
from tests.scan.report_pages import Page, assert_inert, findings, report
from tests.scan.report_runs import png

ONE = findings("a banana")


def noise() -> bytes:
    """A picture that no encoder makes small."""
    pixels = np.random.default_rng(0).integers(0, 256, (500, 700, 3)).astype(np.uint8)
    return miniature(thumbnail(png(pixels)))  # pyright: ignore[reportArgumentType]


def shown(found: Findings, **changes) -> str:
    return assert_inert(render(report(findings=found, **changes))).all_text


def test_a_group_shows_number_size_wordings_and_captions():
    text = shown(ONE)
    assert "1 group of poisoned pairs" in text
    assert "Group 0 41 pairs, 9 different captions" in text
    assert "a banana × 3" in text
    assert "not shown" not in text


def test_groups_that_are_not_shown_are_counted():
    assert "2 smaller groups with 9 pairs in all are not shown." in shown(
        ONE._replace(group_count=3), counts={"poisoned": 50}
    )
    assert "1 smaller group with 1 pair in all is not shown." in shown(
        ONE._replace(group_count=2), counts={"poisoned": 42}
    )


@pytest.mark.parametrize("linked", [True, False])
def test_pairs_that_share_only_looks_are_told(linked):
    found = ONE._replace(groups=(ONE.groups[0]._replace(linked=linked),))
    assert ("what they share is the looks of their pictures" in shown(found)) != linked


def test_merely_wrong_pairs_were_kept_unless_dropped():
    counts = {"mismatched": 1_234}
    kept = shown(ONE, counts=counts)
    assert "All 1,234 were kept; --drop=mismatched drops such pairs too. The 1 surest:" in kept
    assert "97.0 % probably wrong" in kept
    dropped = shown(ONE, counts=counts, drop="mismatched")
    assert "Of these 1,234 pairs none was kept: --drop=mismatched was set." in dropped
    assert "This pair was kept" in shown(ONE, counts={"mismatched": 1})


def test_nothing_found_nothing_shown():
    page = assert_inert(render(report(findings=Findings())))
    assert not {"groups-h", "wrong-h"} & {*page.values("id")}
    assert "For review" not in page.all_text


def test_pictures_are_small_jpegs_and_the_page_is_bounded():
    row = ONE.wrong[0].row._replace(jpeg=noise())
    rows = (row,) * MOST_PICTURES
    full = Findings(
        groups=(ONE.groups[0]._replace(rows=rows),) * MOST_GROUPS,
        group_count=MOST_GROUPS,
        repeated=(ONE.repeated[0]._replace(rows=rows),) * 8,
        wrong=(ONE.wrong[0]._replace(row=row),) * MOST_WRONG,
    )
    html = render(report(findings=full))
    sources = [a["src"] or "" for tag, a in Page(html).elements if tag == "img"]
    pictures = [source for source in sources if source.startswith("data:image/jpeg;base64,")]
    assert len(pictures) == MOST_PICTURES * (MOST_GROUPS + 8) + MOST_WRONG
    image = Image.open(io.BytesIO(base64.b64decode(pictures[0].split(",")[1])))
    assert image.format == "JPEG"
    assert max(image.size) == MINIATURE_SIDE
    assert len(html) < 3_500_000  # noise is the worst case
