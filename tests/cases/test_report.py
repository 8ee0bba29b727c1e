import base64
import re
import shutil
from collections.abc import Iterator
from html import escape

import pytest

from cases._folder import NotARunError, RunFolder
from cases._report import report


def test_the_report_holds_status_error_case_and_pictures(make_run):
    path = report(make_run())
    page = path.read_text(encoding="utf-8")
    assert path.name == "report.html"
    assert "Relative L2 error of u 1.0e-04, within the tolerance 1.0e-03." in page
    assert "<title>heat · completed</title>" in page
    assert "250 MB" in page
    assert "versions.jax" in page
    pictures = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    assert len(pictures) == 2
    for picture in pictures:
        assert base64.b64decode(picture).startswith(b"\x89PNG")


def test_the_report_refers_to_nothing_outside(make_run):
    page = report(make_run()).read_text(encoding="utf-8")
    targets = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']([^"']*)""", page)
    assert len(targets) == 3  # two pictures and the icon
    assert all(target.startswith("data:") for target in targets)
    assert "url(" not in page
    assert "@import" not in page


def test_a_hostile_case_is_shown_and_not_obeyed(make_run):
    path = make_run()
    hostile = '</code></pre><script>alert(1)</script><img src=x onerror="alert(2)">{{ 7*7 }}'
    with RunFolder.open(path) as run:
        run.write_text("case.yaml", f"description: '{hostile}'\n")
        run.write_json("summary.json", {"status": "completed", "case": hostile, hostile: hostile})
    page = report(path).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "{{ 7*7 }}" in page
    assert escape("<script>alert(1)</script>", quote=False) in page


@pytest.mark.parametrize("status", ["diverged", "interrupted"])
def test_a_run_without_solution_has_a_report(make_run, status):
    page = report(make_run(status=status)).read_text(encoding="utf-8")
    assert f">{status}</span>" in page
    assert page.count("<img ") == 1


def test_a_run_that_died_at_once_has_a_report(tmp_path):
    with RunFolder.create(tmp_path / "run") as run:
        run.write_text("case.yaml", "description: [unclosed\n")
    page = report(tmp_path / "run").read_text(encoding="utf-8")
    assert ">unfinished</span>" in page
    assert "nothing to draw" in page
    with pytest.raises(NotARunError):
        report(tmp_path)


def test_an_error_above_the_tolerance_is_said(make_run):
    page = report(make_run(scale=100.0)).read_text(encoding="utf-8")
    assert "Relative L2 error of u 1.0e-02, above the tolerance 1.0e-03." in page


@pytest.fixture(scope="module")
def browser() -> Iterator:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser",
                                                      "google-chrome"))), None)  # fmt: skip
        try:
            # Chromium's sandbox needs rights that containers lack; the page is our own.
            browser = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        except sync_api.Error as error:
            reason = str(error).strip().splitlines()[0]
            pytest.skip(f"no browser: {reason} (try: playwright install chromium)")
        yield browser
        browser.close()


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (360, "dark")])
def test_a_browser_shows_the_report(make_run, browser, width, scheme):
    path = report(make_run())
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert page.title() == "heat · completed"
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    widths = page.evaluate("Array.from(document.images, image => image.naturalWidth)")
    assert len(widths) == 2
    assert min(widths) > 500
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0
    assert page.locator("script").count() == 0
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(246, 247, 249)", "dark": "rgb(20, 22, 26)"}[scheme]
    context.close()
