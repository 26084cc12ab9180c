"""Headless Chromium for tests, spoken to over the DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/. Software rendering (SwiftShader), so it needs no GPU.
"""

import base64
import io
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from tests.support.patience import STALL_SECONDS, ended, eventually, work_of

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--force-device-scale-factor=1",
    "--remote-debugging-port=0",
)


class Page:
    """One tab: what it logged, what it asked for, and what it shows."""

    def __init__(self, socket: ClientConnection, process: subprocess.Popen[bytes]) -> None:
        self._socket, self._process = socket, process
        self._next_id = 0
        self.errors: list[str] = []  # console errors, uncaught exceptions, refused or failed requests
        self.requests: list[str] = []  # URLs
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Navigate; does not wait for anything."""
        self._call("Page.navigate", url=url)

    def before_load(self, script: str) -> None:
        """Run a script in every page that is opened from now on, before the page's own."""
        self._call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def resize(self, width: int, height: int, *, dark: bool = False, still: bool = False) -> None:
        """Give the window a size in px and a colour scheme; `still` is the wish for little motion."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}
        self._call("Emulation.setEmulatedMedia", features=[scheme, motion])

    def run_scripts(self, allowed: bool) -> None:
        """Whether pages run their scripts from now on; `evaluate` always does."""
        self._call("Emulation.setScriptExecutionDisabled", value=not allowed)

    def evaluate(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression; a promise is awaited."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until the expression is true, for as long as the browser works."""
        eventually(lambda: self._holds(expression), expression, lambda: (work_of(self._process.pid), self.errors[-3:]))

    def _holds(self, expression: str) -> bool:
        try:
            return bool(self.evaluate(f"Boolean({expression})"))
        except AssertionError as error:
            if "navigated" not in str(error):  # the page went on to another one while it was asked
                raise
            return False

    def screenshot(self, save_to: Path | None = None, *, full: bool = False) -> NDArray[np.uint8]:
        """RGB [H, W, 3] of the window, or of the full page."""
        answer = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        data = base64.b64decode(answer["data"])
        if save_to is not None:
            save_to.write_bytes(data)
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def scroll(self, x: int, y: int, by_px: int) -> None:
        """Turn the wheel at a place."""
        self._call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=by_px)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._next_id += 1
        self._socket.send(json.dumps({"id": self._next_id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=STALL_SECONDS))
            if message.get("id") == self._next_id:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])
            self._note(message.get("method", ""), message.get("params", {}))

    def _note(self, event: str, parameters: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif event == "Network.loadingFailed" and not parameters.get("canceled"):
            self.errors.append(f"request failed: {parameters.get('errorText')}")
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.errors.append(json.dumps(parameters["args"]))
        elif event == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])


@contextmanager
def chromium(profile: Path, width: int = 960, height: int = 600) -> Iterator[Page]:
    """A fresh browser with its profile in `profile` (a temporary folder), ended with the context."""
    program = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    assert program, "these tests need Chromium: apt-get install chromium"
    command = [program, *_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
    with (
        (profile / "chromium.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            with connect(_page_socket(profile, process), max_size=None, open_timeout=STALL_SECONDS) as socket:
                page = Page(socket, process)
                page.resize(width, height)
                yield page
        finally:
            process.terminate()
            ended(process, "the browser")


def _page_socket(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """The DevTools address of the first tab; Chromium writes its port into the profile."""
    port_file = profile / "DevToolsActivePort"

    def address() -> str | None:
        assert process.poll() is None, f"Chromium ended: {(profile / 'chromium.log').read_text()}"
        if not port_file.is_file() or not (lines := port_file.read_text().splitlines()):
            return None
        with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=STALL_SECONDS) as answer:
            tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
        return str(tabs[0]["webSocketDebuggerUrl"]) if tabs else None

    return eventually(address, "tab of Chromium", lambda: work_of(process.pid))
