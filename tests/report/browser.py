"""Opens pages in a real browser, in windows of several widths, and inspects them with a script.

It needs chromium on the PATH, which is not a Python package. Without it tests are skipped, or fail with
CNN_JAX_REQUIRE_BROWSER=1.
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
OPTIONS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
OPTIONS += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # a webcam that shows a test image


def find_browser() -> str:
    """The browser's path; without one the test is skipped, or fails."""
    if BROWSER is None:
        message = "chromium is not on the PATH (Debian: apt-get install chromium)"
        pytest.fail(message) if os.environ.get("CNN_JAX_REQUIRE_BROWSER") == "1" else pytest.skip(message)
    return BROWSER


class Tab:
    """One tab of a running browser, driven by the DevTools protocol: real pointer events, and scripts that wait.

    Attributes:
      errors: What the pages' scripts threw or reported as an error.
      requests: The addresses that the pages asked for.
    """

    def __init__(self, to_browser: IO[bytes], from_browser: IO[bytes]) -> None:
        self._to, self._from = to_browser, from_browser
        self._last, self._session, self._buffer = 0, None, b""
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._from.fileno(), 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        content, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(content)
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(message["params"]["exceptionDetails"])[:2000])
            case "Log.entryAdded" if message["params"]["entry"]["level"] == "error":
                self.errors.append(message["params"]["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        return message

    def open(self, page: Path | str, *, width: int = 1440, height: int = 900, dark: bool = False) -> None:
        """Opens a file or an address in a window of a size and waits until it is loaded."""
        self.resize(width, height, dark=dark)
        url = page.as_uri() if isinstance(page, Path) else page
        self.call("Page.navigate", url=url)
        loaded = "new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', done))"
        for _ in range(100):
            if self.run("location.href") == url:
                break
        self.run(loaded)

    def measure(self, page: Path, script: str, *, widths: Sequence[int]) -> list[Any]:
        """The result of a JavaScript function without arguments for a file, opened anew at each width.

        The script runs in the page, also where the page's content security policy allows no script.
        """
        self.errors.clear()
        results = []
        for width in widths:
            self.open(f"{page.as_uri()}?{width}", width=width)
            results.append(self.run(f"({script})()"))
        assert self.errors == []
        return results

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Sets the size of the window and the colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, expression: str) -> Any:
        """The JSON value of an expression in JavaScript; a promise is waited for."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def drag(self, points: Sequence[tuple[float, float]]) -> None:
        """Presses the mouse button at the first point, moves through all, and releases it at the last."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def point(self, x: float, y: float) -> None:
        """Moves the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        """Presses and releases a key, such as ``'ArrowRight'``."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Saves what the window shows, or the whole page, as PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def tab(folder: Path) -> Iterator[Tab]:
    """A tab in a browser of its own.

    Args:
      folder: For the browser's own files.
    """
    command = [find_browser(), *OPTIONS, f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe"]
    (commands_read, commands_write), (answers_read, answers_write) = os.pipe(), os.pipe()
    shell = f'exec "$@" 3<&{commands_read} 4>&{answers_write}'  # where the browser looks for its pipes
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", shell, "browser", *command],
            pass_fds=(commands_read, answers_write),
            stdout=log,
            stderr=log,
        )
    os.close(commands_read)
    os.close(answers_write)
    with os.fdopen(commands_write, "wb") as to_browser, os.fdopen(answers_read, "rb") as from_browser:
        try:
            yield Tab(to_browser, from_browser)
        finally:
            process.terminate()
            process.wait(timeout=20)
