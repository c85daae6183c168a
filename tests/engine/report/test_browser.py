"""The page in a real browser: it asks for nothing, has nothing to complain of, and fits a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")

# Loads the page into a frame of a given width and writes what it found where `--dump-dom` prints it.
PROBE = """<!DOCTYPE html><iframe id="frame" style="width:{width}px;height:800px;border:0"></iframe>
<pre id="found"></pre><script>
const frame = document.getElementById("frame");
frame.onload = () => {{
  const inner = frame.contentWindow, root = inner.document.documentElement;
  const wide = [...inner.document.querySelectorAll("body *")]
    .filter((e) => !e.closest(".scroll, pre, svg") && e.getBoundingClientRect().right > {width} + 0.5)
    .map((e) => e.tagName + "#" + e.id);
  const clipped = [...inner.document.querySelectorAll("svg[role=img]")].flatMap((svg) => {{
    const box = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text")].filter((text) => {{
      const at = text.getBoundingClientRect();
      return Math.min(at.left - box.left, box.right - at.right, at.top - box.top, box.bottom - at.bottom) < -1;
    }}).map((text) => text.closest("section").id + ": " + text.textContent);
  }});
  const size = inner.getComputedStyle(inner.document.querySelector("svg text.tick")).fontSize;
  const svg = inner.document.querySelector("svg[role=img]");
  const pixels = parseFloat(size) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  const resources = inner.performance.getEntriesByType("resource").map((entry) => entry.name);
  document.getElementById("found").textContent = JSON.stringify(
    {{scroll: root.scrollWidth, wide, clipped, pixels, resources: resources.filter((r) => !r.startsWith("data:"))}}
  );
}};
frame.src = "{page}";
</script>"""


def visit(page: Path, folder: Path, width: int) -> tuple[dict, list[str]]:
    """What the probe found, and what the page wrote to the console."""
    probe = folder / "probe.html"
    probe.write_text(PROBE.format(width=width, page=page.as_uri()))
    done = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
            "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900",
            "--virtual-time-budget=10000", "--dump-dom", probe.as_uri(),
        ],
        text=True, capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")), console


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_asks_for_nothing_and_fits(page: Path, tmp_path: Path, width: int) -> None:
    found, console = visit(page, tmp_path, width)
    assert console == []
    assert found["resources"] == []
    assert found["scroll"] <= width
    assert found["wide"] == []
    assert found["clipped"] == []
    assert found["pixels"] >= 8.5  # the smallest letters


def test_a_request_would_be_seen(page: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.html"
    (tmp_path / "dot.css").write_text("p { color: red }")
    spoilt.write_text(page.read_text().replace("</head>", '<link rel="stylesheet" href="dot.css"></head>'))
    _, console = visit(spoilt, tmp_path, 1280)
    assert any("Content Security Policy" in line for line in console)
