"""Pages in a real browser: pictures, the element, the viewer, driven as a visitor would. Run by `make test-web`.

Needs playwright (the extra `browser`) and the system's Chromium; left out with a message where one is missing.
Screenshots stay in out/browser.
"""

import base64
import contextlib
import functools
import http.server
import io
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from web_cases import GOLDEN, cases, check_alike

import gaussjax
from experiments import fuzz_format
from gaussjax.gjx import container

playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'gaussjax[browser]' for these tests")

WEB = Path(gaussjax.__file__).parent / "web"
SCREENSHOTS = Path("out/browser")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
  "--no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update "
  "--disable-sync --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader"
)
PHOTO = (GOLDEN / "photo.gjx").read_bytes()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")


class Site(http.server.SimpleHTTPRequestHandler):
  """Files of `pages` by name, and those of gaussjax/web; what is under /slow/ waits for `go` after the first layer."""

  pages: dict[str, tuple[str, bytes]] = {}
  go = threading.Event()

  def do_GET(self):
    """Sends a file."""
    path = self.path.split("?")[0]
    name = path.removeprefix("/slow/").removeprefix("/")
    kind, body = self.pages.get(name) or ("text/javascript", (WEB / name).read_bytes() if (WEB / name).is_file() else b"")
    self.send_response(200 if body else 404)
    self.send_header("Content-Type", kind)
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
      if path.startswith("/slow/"):
        first = sum(size for _, size in container.read(body).sizes[:2]) + 40
        self.wfile.write(body[:first])
        self.wfile.flush()
        self.go.wait(20)
        body = body[first:]
      self.wfile.write(body)

  def log_message(self, *_):
    """Says nothing."""


@pytest.fixture(scope="module")
def site():
  """The address of a server with the module and the golden files."""
  blank = b"<!doctype html><meta charset=utf-8><title>test</title><link rel=icon href=data:,><body></body>"
  script = b"<script type=module>import * as gjx from '/gjx.js'; window.gjx = gjx;</script>"
  Site.pages = {"blank.html": ("text/html", blank + script)}
  for path in GOLDEN.glob("*.gjx"):
    Site.pages[path.name] = ("application/octet-stream", path.read_bytes())
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield f"http://127.0.0.1:{server.server_port}"
  server.shutdown()
  server.server_close()


@pytest.fixture(scope="module")
def browser():
  """Chromium without a window."""
  SCREENSHOTS.mkdir(parents=True, exist_ok=True)
  with playwright.sync_playwright() as driver:
    found = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS.split())
    yield found
    found.close()


@contextlib.contextmanager
def opened(browser, address, **options):
  """A page whose errors fail the test."""
  context = browser.new_context(**options)
  page, errors = context.new_page(), []
  page.on("pageerror", lambda error: errors.append(str(error)))
  page.set_default_timeout(20_000)
  page.goto(address)
  yield page
  context.close()
  assert not errors, errors


@pytest.fixture
def page(browser, site):
  """A page with the module as `gjx`."""
  with opened(browser, f"{site}/blank.html") as page:
    page.wait_for_function("window.gjx")
    yield page


def base64_of(data):
  return base64.b64encode(data).decode()


BYTES = "const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));"
DRAW = (
  BYTES
  + """
  const canvas = document.createElement("canvas"), renderer = new gjx.Renderer(canvas, { by });
  const image = gjx.decode(bytesOf(data)), { gl } = renderer;
  renderer.show(image).draw(view, width, height);
  let pixels = new Uint8Array(4 * width * height);
  if (gl) gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  else pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const again = renderer.draw(view, width, height);
  gl?.getExtension("WEBGL_lose_context").loseContext();
  let text = "";
  for (let i = 0; i < pixels.length; i += 8192) text += String.fromCharCode(...pixels.subarray(i, i + 8192));
  return { by: renderer.by, again, upside: !!gl, text: btoa(text) };
"""
)


def drawn_by(page, case, by):
  """`[H, W, 4]` bytes of a case."""
  given = json.dumps({"data": base64_of(case.data), "by": by, **case.json()})
  found = page.evaluate(f"(() => {{ const {{ data, by, view, width, height }} = {given}; {DRAW} }})()")
  assert found["by"] == by and found["again"] is False
  pixels = np.frombuffer(base64.b64decode(found["text"]), np.uint8).reshape(case.height, case.width, 4)
  return pixels[::-1] if found["upside"] else pixels


def test_golden_files_are_read_as_the_same_integers(page):
  for path in GOLDEN.glob("*.gjx"):
    code = BYTES + "const { codes } = gjx.decode(bytesOf(data)); return Object.fromEntries(Object.entries(codes).map(([k, v]) => [k, [...v]]));"
    found = page.evaluate(f"(data) => {{ {code} }}", base64_of(path.read_bytes()))
    layers = container.read(path.read_bytes()).layers
    for name in ("cells", "parts", "minor", "ratio", "turn", "colors"):
      np.testing.assert_array_equal(found[name], np.concatenate([getattr(layer, name).ravel() for layer in layers]))


@pytest.mark.parametrize(("by", "most"), [("float", 1), ("half", 2), ("2d", 1)])
def test_pictures_are_those_of_python(page, by, most):
  for path in sorted(GOLDEN.glob("*.gjx")):
    data = path.read_bytes()
    if by == "2d" and "alpha" in path.stem:
      continue  # its canvas gives back colours that were multiplied by alpha and divided again
    for case in cases(path.stem, data):
      check_alike(drawn_by(page, case, by), case, multiplied=True, most=most)
