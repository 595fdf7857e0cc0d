"""Opens pages in a real browser, in frames of several widths, and inspects them with a script.

It needs chromium on the PATH, which is not a Python package. Without it tests are skipped, or fail with
CNN_JAX_REQUIRE_BROWSER=1.
"""

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def measure(folder: Path, page: str, script: str, *, widths: Sequence[int]) -> list[dict[str, Any]]:
    """The result of a JavaScript function for a page at each width.

    Args:
      folder: A folder for the browser's own files.
      page: HTML.
      script: JavaScript with a function ``measure(frame)``.
      widths: The widths of the frames. A headless window has a minimum width, a frame does not.
    """
    if BROWSER is None:
        message = "chromium is not on the PATH (Debian: apt-get install chromium)"
        pytest.fail(message) if os.environ.get("CNN_JAX_REQUIRE_BROWSER") == "1" else pytest.skip(message)
    page = html.escape(page)
    frames = "".join(
        f'<iframe srcdoc="{page}" style="border: 0; width: {width}px; height: 800px"></iframe>' for width in widths
    )
    script += """
    addEventListener("load", () => {
      document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(measure));
    });
    """
    (folder / "frames.html").write_text(f"<!doctype html><meta charset=utf-8>{frames}<script>{script}</script>")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
    options += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000", "--dump-dom"]
    browser = [BROWSER, *options, Path(folder / "frames.html").as_uri()]
    done = subprocess.run(browser, capture_output=True, text=True, check=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stderr[-2000:]
    return json.loads(html.unescape(title.group(1)))
