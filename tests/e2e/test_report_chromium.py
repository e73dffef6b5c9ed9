"""The report in a real browser: hostile captions neither run nor load anything; it draws."""

import dataclasses
import http.server
import re
import threading

import numpy as np
import pytest
from PIL import Image

from mmjax.scan.report import ReportPair, render
from mmjax.scan.report_groups import Findings
from mmjax.scan.report_text import SCORES
from tests.e2e.conftest import browse
from tests.scan.report_pages import findings, report

pytestmark = pytest.mark.e2e


@pytest.fixture
def hits():
    """What is asked from a server on this machine, and its address; it is a proxy to all others."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_CONNECT = do_POST = do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield asked, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


ELSEWHERE = "evil.example"


def through(address: str) -> list[str]:
    """Options: whatever is asked of anybody is asked of the server."""
    return [f"--proxy-server={address}", "--proxy-bypass-list=<-loopback>"]


def attacks(address: str) -> list[str]:
    """Captions that do something where they are not shown as text."""
    return [
        "<script>document.title='taken'</script>",
        '"><img src=x onerror="document.title=\'taken\'">',
        f"</blockquote><img src={address}/image>",
        f"</style><link rel=stylesheet href={address}/style>",
        f"<iframe src=http://{ELSEWHERE}/frame></iframe>",
        f"<style>@import url(http://{ELSEWHERE}/import)</style>",
        f"<p style='background: url(http://{ELSEWHERE}/css)'>",
        f"<video poster=http://{ELSEWHERE}/poster><audio autoplay src=http://{ELSEWHERE}/audio>",
        f"<link rel=prefetch href=http://{ELSEWHERE}/prefetch><base href=http://{ELSEWHERE}/>",
        f"<svg onload=fetch('{address}/fetch')>",
    ]


HARMFUL = [
    "safe\u202egnp.exe\u2066",
    f"\x1b[31m\x1b]8;;http://{ELSEWHERE}/terminal\x07link\x00\x9b",
    f'=HYPERLINK("http://{ELSEWHERE}/sheet")',
    "{{7*7}} <a href=\"javascript:document.title='taken'\">",
    "x" * 1_000_000,
]
"""Captions that harm elsewhere, or by their size."""


def test_hostile_captions_neither_run_nor_load(browser, hits, tmp_path):
    asked, address = hits
    control = tmp_path / "control.html"
    control.write_text(f"<title>plain</title>{''.join(attacks(address))}")
    assert "<title>taken</title>" in browse(browser, control, "--dump-dom", *through(address))
    assert {f"{address}/image", f"{address}/style"} <= set(asked)  # they work if nothing stops them
    assert any(ELSEWHERE in url for url in asked)
    asked.clear()

    scores = dict.fromkeys(SCORES, 0.5)
    texts = [*attacks(address), *HARMFUL]
    pairs = [
        ReportPair(i, text, i, text, text, "poisoned", scores, None)
        for i, text in enumerate(texts, 1)
    ]
    page = tmp_path / "report.html"
    each = [findings(text) for text in texts]
    found = Findings(
        groups=tuple(one.groups[0] for one in each),
        group_count=len(each),
        repeated=tuple(one.repeated[0] for one in each),
        wrong=tuple(one.wrong[0] for one in each),
    )
    page.write_text(render(report(worst=pairs, findings=found)), encoding="utf-8")
    dom = browse(browser, page, "--dump-dom", *through(address))
    assert "<title>test.tar</title>" in dom
    assert not re.search("<(script|iframe|svg onload|video|audio|link|base)", dom)
    assert not re.search('<[a-z][^>]*\\b(href|src)=(?!"(#|data:image/))', dom)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", dom)
    assert "safe⟨U+202E⟩gnp.exe" in dom
    assert "{{7*7}}" in dom
    assert len(dom) < 500_000
    assert [url for url in asked if address in url or ELSEWHERE in url] == []


def test_the_policy_stops_what_would_slip_through(browser, hits, tmp_path):
    asked, address = hits
    page = tmp_path / "leaky.html"
    html = render(report()).replace("<main>", "<main>" + "".join(attacks(address)))
    page.write_text(html, encoding="utf-8")
    assert "<title>test.tar</title>" in browse(browser, page, "--dump-dom", *through(address))
    assert [url for url in asked if address in url or ELSEWHERE in url] == []


@pytest.mark.parametrize(("width", "dark"), [(480, False), (1200, False), (1200, True)])
def test_the_page_draws_in_light_and_dark_narrow_and_wide(browser, tmp_path, width, dark):
    page = tmp_path / "report.html"
    data = dataclasses.replace(report(), outcome="poisoned")
    page.write_text(render(data), encoding="utf-8")
    options = ["--blink-settings=preferredColorScheme=0"] if dark else []
    shot = tmp_path / "shot.png"
    browse(browser, page, f"--screenshot={shot}", f"--window-size={width},1600", *options)
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape[1] == width
    assert (np.median(pixels) < 60) == dark
    red = (pixels[:12, :, 0] - pixels[:12, :, 2]).mean()
    assert red > 40  # the bar above a verdict of poison
    margin = pixels[-200:, -8:]  # nothing sticks out of the right side
    assert np.ptp(margin.reshape(-1, 3), axis=0).max() < 8
