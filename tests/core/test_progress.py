"""Progress off a terminal: rare lines, with rate and time left."""

import io

from mmjax.core import progress


def test_lines_with_rate_and_remaining_time() -> None:
    out = io.StringIO()
    shown = progress.LineMeter(4, "encode", out, seconds=0.0)
    shown.update(2)
    shown.update(2)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("encode: 2/4, ")
    assert lines[0].endswith("left")
    assert lines[1].startswith("encode: 4/4, ")


def test_short_work_is_silent() -> None:
    out = io.StringIO()
    shown = progress.LineMeter(4, "encode", out)
    shown.update(4)
    shown.close()
    assert out.getvalue() == ""


def test_progress_yields_everything() -> None:
    assert list(progress.progress([1, 2, 3], total=3, what="x")) == [1, 2, 3]


def test_format_seconds() -> None:
    assert progress.format_seconds(75.0) == "1:15"
    assert progress.format_seconds(3700.0) == "1:01:40"
