"""A real JupyterLab in a real browser: a server, a page, cells that are run by it, and what it then shows."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Request

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PACKAGES = ("axe_playwright_python", "ipywidgets", "jupyterlab", "nbconvert", "playwright")
OUTPUT = ".jp-OutputArea-output"
_AXE_RESULTS = ("violations", "incomplete")
_UNDECIDED = frozenset({"elmPartiallyObscured", "shortTextContent", "nonBmp"})
_LEAST_CONTRAST = 4.5
# By the formula of WCAG 2: colours over each other, from the page's own to those of the boxes around the words.
_FAINT_WORDS = """
([selector, least]) => {
  const rgba = text => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1] };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
  const linear = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = c => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const filled = node => {
    const style = getComputedStyle(node), color = rgba(style.fill);
    color[3] *= Number(style.fillOpacity);
    return color;
  };
  const found = [];
  for (const picture of document.querySelectorAll(`${selector} svg.sabot-svg`)) {
    let page = picture, base = [0, 0, 0, 0];
    while (base[3] === 0 && (page = page.parentElement)) base = rgba(getComputedStyle(page).backgroundColor);
    const boxes = [...picture.querySelectorAll('rect')].filter(box => getComputedStyle(box).fill !== 'none');
    for (const words of picture.querySelectorAll('text')) {
      const place = words.getBoundingClientRect();
      if (!place.width) continue;
      const x = place.x + place.width / 2, y = place.y + place.height / 2;
      let below = base.slice(0, 3);
      for (const box of boxes) {
        const area = box.getBoundingClientRect();
        if (area.left <= x && x <= area.right && area.top <= y && y <= area.bottom) below = over(filled(box), below);
      }
      const [low, high] = [light(below), light(over(filled(words), below))].sort((a, b) => a - b);
      const ratio = (high + 0.05) / (low + 0.05);
      if (ratio < least) found.push(`${ratio.toFixed(2)}: ${words.textContent}`);
    }
  }
  return found;
}
"""
_START_SECONDS = 60.0
_CELL_MS = 20_000
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# What a test drives is the notebook: no news, no completion server, no look for newer versions.
_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}


def browser_program() -> str:
    """The path of an installed browser.

    Without one, or without the packages of the ``test`` extra, the tests are skipped, but never where they must run.
    """
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if found is not None and not missing:
        return found
    reason = f"not installed: {', '.join(missing)}"
    if found is None:
        reason = f"no browser is installed (one of {', '.join(BROWSERS)}; Debian: apt-get install chromium)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True, slots=True)
class Server:
    """A running JupyterLab with a folder of notebooks."""

    url: str
    token: str
    folder: Path

    def api(self, path: str) -> Any:
        """What the server's own interface answers."""
        request = urllib.request.Request(f"{self.url}/api/{path}", headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def write(self, name: str, cells: Sequence[str], scrolled: Collection[int] = ()) -> Path:
        """A notebook of code cells that has not run; the outputs of those ``scrolled`` scroll in a box of their own."""
        code = [
            nbformat.v4.new_code_cell(cell, metadata={"scrolled": True} if place in scrolled else {})
            for place, cell in enumerate(cells)
        ]
        book = nbformat.v4.new_notebook(cells=code)
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = self.folder / f"{name}.ipynb"
        nbformat.write(book, path)
        return path


@contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    """JupyterLab on a free port of this machine, with settings and kernels of its own."""
    home = folder / "home"
    settings = home / "config" / "lab" / "user-settings"
    for plugin, values in _SETTINGS.items():
        package, name = plugin.split(":")
        path = settings / package / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--ServerApp.root_dir={notebooks}", f"--IdentityProvider.token={token}"]
    command += ["--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None"]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
    }
    log = folder / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=notebooks, env=environment, stdout=out, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", token, notebooks)
    try:
        _wait_for(server, process, log)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait_for(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"JupyterLab does not start:\n{log.read_text()[-2000:]}")
        try:
            server.api("status")
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Chromium without a window."""
    program = browser_program()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Lab:
    """One page of JupyterLab with a notebook in it."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.server = server
        self.foreign: list[str] = []
        page.on("request", self._note)
        page.set_default_timeout(_CELL_MS)

    def _note(self, request: Request) -> None:
        if not request.url.startswith((self.server.url, self.server.url.replace("http", "ws"), "data:", "blob:")):
            self.foreign.append(request.url)

    def open(self, path: Path, *, kernel: bool = True) -> None:
        """Show a notebook; with ``kernel`` its kernel is ready."""
        self.page.goto(f"{self.server.url}/lab/tree/{path.name}?reset&token={self.server.token}")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self._uncovered()
        if kernel:
            self.page.wait_for_function(
                "() => { const w = window.jupyterapp?.shell?.currentWidget;"
                " return w?.context?.isReady && w.sessionContext?.isReady &&"
                " w.sessionContext.session?.kernel?.status === 'idle' }"
            )

    def command(self, name: str) -> None:
        """Run a command of JupyterLab; returns when it is done."""
        self.page.evaluate("name => window.jupyterapp.commands.execute(name)", name)

    def begin(self, index: int) -> None:
        """Start a cell."""
        self.page.evaluate(
            "i => { const book = window.jupyterapp.shell.currentWidget.content;"
            " book.activeCellIndex = i; book.deselectAll();"
            " window.jupyterapp.commands.execute('notebook:run-cell'); }",
            index,
        )

    def wait(self, index: int) -> None:
        """Return when a cell that was started has ended, whether well or not."""
        self.page.wait_for_function(
            "i => { const w = window.jupyterapp.shell.currentWidget, cell = w.content.widgets[i].model;"
            " return cell.executionState === 'idle' && cell.executionCount !== null &&"
            " w.sessionContext.session.kernel.status === 'idle' }",
            arg=index,
        )

    def run(self, index: int) -> None:
        """Run a cell to its end."""
        self.begin(index)
        self.wait(index)

    def cell(self, index: int) -> Locator:
        """A cell by its place."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        """The outputs of a cell."""
        return self.cell(index).locator(OUTPUT)

    def theme(self, *, dark: bool) -> None:
        """Switch JupyterLab's theme, and what the page is told that the user prefers."""
        self.page.emulate_media(color_scheme="dark" if dark else "light")
        name = "JupyterLab Dark" if dark else "JupyterLab Light"
        self.page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})",
            name,
        )
        self.page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=name)
        self._uncovered()

    def _uncovered(self) -> None:
        """Return when JupyterLab's splash is gone: it lies over the page while a theme loads, and for a while after."""
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")

    def violations(self, selector: str = OUTPUT, *, allowed: Collection[str] = ()) -> list[str]:
        """What axe finds wrong in what is shown there by rules that are not ``allowed``, and what it cannot decide.

        It does not look at what is scrolled out of sight, and never decides on the colours of words in a picture:
        :meth:`faint_words` does.
        """
        from axe_playwright_python.sync_playwright import Axe

        # JupyterLab's body has no height, so axe takes all that stands in it for hidden and looks at no colour.
        self.page.evaluate("document.body.style.overflow = 'visible'")
        found = Axe().run(self.page, context={"include": [[selector]]}, options={"resultTypes": list(_AXE_RESULTS)})
        assert found.response["passes"], f"axe found nothing to look at in {selector}"
        return [
            f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
            for kind in _AXE_RESULTS
            for rule in found.response[kind]
            for node in rule["nodes"]
            if rule["id"] not in allowed and not (rule["id"] == "color-contrast" and _is_undecided(node))
        ]

    def faint_words(self, selector: str = OUTPUT) -> list[str]:
        """Words of pictures that stand out from what is below them by less than 4.5 to 1."""
        return [str(text) for text in self.page.evaluate(_FAINT_WORDS, [selector, _LEAST_CONTRAST])]

    def save(self) -> None:
        """Save the notebook."""
        self.command("docmanager:save")


def _is_undecided(node: dict[str, Any]) -> bool:
    """Whether axe cannot tell a colour: of words in a picture, half scrolled out of sight, or of a lone sign."""
    keys = {check["data"]["messageKey"] for check in node["any"] if check["data"]}
    return node["html"].startswith(("<text", "<tspan")) or bool(keys & _UNDECIDED)
