"""Pages in a real browser: pictures, the element, the viewer, driven as a visitor would. Run by `make test-web`.

Needs playwright (the extra `browser`) and the system's Chromium; left out with a message where one is missing.
Screenshots stay in out/browser.
"""

import base64
import contextlib
import dataclasses
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
from scenes import scene
from web_cases import GOLDEN, by_python, cases, check_alike, golden

import gaussjax
from experiments import fuzz_format
from gaussjax import cli
from gaussjax.exchange import svg
from gaussjax.gjx import container
from gaussjax.rendering import blends
from gaussjax.web import pages, reports

try:
  import playwright.sync_api
except ImportError:
  playwright = None

WEB = Path(gaussjax.__file__).parent / "web"
SCREENSHOTS = Path("out/browser")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
  "--no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update "
  "--disable-sync --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader"
)
PHOTO = (GOLDEN / "photo.gjx").read_bytes()
pytestmark = [
  pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
  pytest.mark.skipif(playwright is None, reason="there is no playwright: pip install 'gaussjax[browser]'"),
]


class Site(http.server.SimpleHTTPRequestHandler):
  """Files of `pages` and of gaussjax/web by name; what is under /slow/ waits for `go` after the first layer."""

  pages: dict[str, tuple[str, bytes]] = {}
  go = threading.Event()

  def do_GET(self):
    """Sends a file."""
    path = self.path.split("?")[0]
    name = path.removeprefix("/slow/").removeprefix("/")
    kind, body = self.pages.get(name) or (
      "text/javascript",
      (WEB / name).read_bytes() if (WEB / name).is_file() else b"",
    )
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
  for name, data in golden().items():
    Site.pages[name] = ("application/octet-stream", data)
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield f"http://127.0.0.1:{server.server_port}"
  server.shutdown()
  server.server_close()


@pytest.fixture(scope="module")
def browser():
  """Chromium without a window."""
  SCREENSHOTS.mkdir(parents=True, exist_ok=True)
  with playwright.sync_api.sync_playwright() as driver:
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
  for data in golden().values():
    code = (
      BYTES
      + "const lists = Object.entries(gjx.decode(bytesOf(data)).codes).map(([name, list]) => [name, [...list]]);"
      + "return Object.fromEntries(lists);"
    )
    found = page.evaluate(f"(data) => {{ {code} }}", base64_of(data))
    layers = container.read(data).layers
    for name in type(layers[0])._fields:
      np.testing.assert_array_equal(found[name], np.concatenate([getattr(layer, name).ravel() for layer in layers]))


@pytest.mark.parametrize(("by", "most"), [("float", 1), ("half", 2), ("2d", 1)])
def test_pictures_are_those_of_python(page, by, most):
  for name, data in golden().items():
    if by == "2d" and "alpha" in name:
      continue  # its canvas gives back colours that were multiplied by alpha and divided again
    for case in cases(name, data):
      check_alike(drawn_by(page, case, by), case, multiplied=True, most=most)


def test_a_lost_context_is_restored_and_nothing_is_drawn_twice(page):
  found = page.evaluate(
    """async (data) => {"""
    + BYTES
    + """
    const canvas = document.createElement("canvas"), renderer = new gjx.Renderer(canvas), { gl } = renderer;
    const sum = () => {
      const p = new Uint8Array(4 * 96 * 64);
      gl.readPixels(0, 0, 96, 64, gl.RGBA, gl.UNSIGNED_BYTE, p);
      return p.reduce((a, b) => a + b, 0);
    };
    const image = gjx.decode(bytesOf(data)), view = [0, 0, 768, 512];
    const first = renderer.show(image).draw(view, 96, 64), before = sum(), second = renderer.draw(view, 96, 64);
    const fewer = renderer.show(image, { count: 20 }).draw(view, 96, 64), other = sum();
    renderer.show(image).draw(view, 96, 64);
    const losing = gl.getExtension("WEBGL_lose_context");
    const restored = new Promise((resolve) =>
      canvas.addEventListener("webglcontextrestored", () => resolve(sum())));
    losing.loseContext();
    await new Promise((resolve) => canvas.addEventListener("webglcontextlost", resolve));
    const lost = renderer.draw([0, 0, 9, 9], 96, 64);
    renderer.last = [view, 96, 64];
    await new Promise((resolve) => setTimeout(resolve, 50));
    losing.restoreContext();
    const after = await restored;
    losing.loseContext();
    return { first, second, fewer, lost, before, other, after };
  }""",
    base64_of(PHOTO),
  )
  assert (found["first"], found["second"], found["fewer"], found["lost"]) == (True, False, True, False)
  assert found["before"] == found["after"] != found["other"]


def boxes(page, html):
  """[width, height] of each element of a page after all have ended."""
  page.evaluate("(html) => { document.body.innerHTML = html; }", html)
  page.wait_for_function("[...document.querySelectorAll('gjx-image')].every((e) => e.complete)")
  return page.evaluate(
    "[...document.body.children].map((e) => [e.getBoundingClientRect().width, e.getBoundingClientRect().height])"
  )


def test_the_element_takes_the_place_that_an_image_would(page):
  source = Image.new("RGB", (120, 80))
  buffer = io.BytesIO()
  source.save(buffer, "PNG")
  png = "data:image/png;base64," + base64_of(buffer.getvalue())
  for attributes in (
    "",
    "width=60",
    "height=40",
    "width=50 height=50",
    'style="width: 90px"',
    'style="height: 120px"',
    'style="width: 50%; max-width: 70px"',
    'width=240 height=160 style="max-width: 100%; height: auto"',
  ):
    mine, theirs = boxes(page, f"<gjx-image src=/alpha.gjx {attributes}></gjx-image><img src='{png}' {attributes}>")
    assert mine == pytest.approx(theirs, abs=0.6), attributes


def test_the_element_fits_as_css_says(browser, site):
  """Screenshots beside those of the same picture as <img>."""
  buffer = io.BytesIO()
  case = cases("photo", PHOTO)[1]
  Image.fromarray(by_python(case)[..., :3]).save(buffer, "PNG")
  Site.pages["photo.png"] = ("image/png", buffer.getvalue())
  with opened(browser, f"{site}/blank.html", viewport={"width": 700, "height": 500}, device_scale_factor=2) as page:
    page.wait_for_function("window.gjx")
    style = "display: block; width: 200px; height: 200px; background: teal; margin: 2px; object-fit: "
    fits = ("fill", "contain", "cover", "cover; object-position: 10% 0", "scale-down")
    for fit in fits:
      boxes(
        page,
        f"<gjx-image src=/photo.gjx style='{style}{fit}'></gjx-image> <img src=/photo.png style='{style}{fit}'>",
      )
      page.wait_for_function("document.querySelector('img').complete")
      page.wait_for_timeout(100)
      shots = []
      for name in ("gjx-image", "img"):
        shot = page.locator(name).screenshot()
        shots.append(np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int))
      assert np.abs(shots[0] - shots[1]).mean() < 3, fit  # the image is scaled by the browser


def test_the_element_has_words_and_events(page):
  page.evaluate("""() => {
    window.heard = [];
    const hear = (e) => heard.push(`${e.type} ${e.target.id}`);
    for (const name of ["load", "error"]) document.addEventListener(name, hear, true);
  }""")
  boxes(
    page,
    """<gjx-image id=a src=/photo.gjx alt="parrots"></gjx-image><gjx-image id=b src=/none.gjx alt="gone">
    </gjx-image><gjx-image id=c src=/gjx.js alt="no picture"></gjx-image>
    <gjx-image id=d src=/alpha.gjx alt=""></gjx-image>""",
  )
  assert sorted(page.evaluate("heard")) == ["error b", "error c", "load a", "load d"]
  found = page.evaluate("[a.naturalWidth, a.naturalHeight, b.naturalWidth, c.error.message]")
  assert found == [768, 512, 0, "not a .gjx file: its signature is missing"]
  tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
  images = [node["name"]["value"] for node in tree if node.get("role", {}).get("value") == "image"]
  assert images == ["parrots", "gone", "no picture"]  # that without words is only to be looked at
  assert page.locator("#b").evaluate("(e) => e.shadowRoot.querySelector('span').textContent") == "gone"
  assert page.evaluate("a.decode().then(() => 1)") == 1 and page.evaluate("b.decode().catch(() => 2)") == 2
  page.evaluate("b.src = '/gray_sum.gjx'")
  page.wait_for_function("b.naturalWidth === 120")


def test_the_element_is_lazy_and_draws_layers_as_they_come(page):
  page.evaluate("""document.body.innerHTML =
    `<gjx-image id=far src=/photo.gjx loading=lazy style="margin-top: 5000px"></gjx-image>`""")
  page.wait_for_timeout(300)
  assert page.evaluate("far.state") == "waiting"
  page.evaluate("far.scrollIntoView()")
  page.wait_for_function("far.complete")
  Site.go.clear()
  page.evaluate("document.body.innerHTML = '<gjx-image id=slow src=/slow/photo.gjx></gjx-image>'")
  page.wait_for_function("slow.image && slow.canvas.width > 300")
  assert page.evaluate("[slow.image.layers.length, slow.state]") == [1, "loading"]
  first = page.locator("#slow").screenshot(path=SCREENSHOTS / "element-first-layer.png")
  page.evaluate("document.body.append(slow)")  # is moved while it loads, and begins anew
  Site.go.set()
  page.wait_for_function("slow.complete && slow.image.layers.length === 3")
  assert page.locator("#slow").screenshot(path=SCREENSHOTS / "element.png") != first
  Site.go.clear()
  page.evaluate("document.body.innerHTML = '<gjx-image id=slow src=/slow/v3/weighted_layers.gjx></gjx-image>'")
  page.wait_for_function("slow.image && slow.canvas.width > 100")
  assert page.evaluate("[slow.image.layers.length, slow.image.version, slow.state]") == [1, 3, "loading"]
  Site.go.set()
  page.wait_for_function("slow.complete && slow.image.layers.length === 2")


def test_grain_can_be_left_out(page, browser, tmp_path):
  """By the element's attribute, and in the viewer, which tells of its bytes."""
  page.evaluate("document.body.innerHTML = '<gjx-image id=e src=/v3/grain.gjx></gjx-image>'")
  page.wait_for_function("e.complete && e.canvas.width === 192")
  shots = [page.locator("#e").screenshot()]
  for change in ("e.setAttribute('nograin', '')", "e.removeAttribute('nograin')"):
    page.evaluate(change)
    shots.append(page.locator("#e").screenshot())
  assert shots[0] == shots[2] != shots[1]
  data = (GOLDEN / "v3" / "grain.gjx").read_bytes()
  (tmp_path / "grain.html").write_text(pages.viewer(data, title="grain"))
  (tmp_path / "plain.html").write_text(pages.viewer((GOLDEN / "v3" / "gray_sum.gjx").read_bytes(), title="none"))
  with opened(browser, (tmp_path / "grain.html").as_uri()) as viewer:
    viewer.wait_for_function("document.getElementById('zoom').textContent !== '100%'")
    picture = lambda: viewer.locator("#picture").screenshot()
    before = picture()
    viewer.locator("#stage").press("g")
    viewer.wait_for_timeout(200)
    assert picture() != before and "grain" in viewer.locator("#bytes").inner_text()
    viewer.check("#grain")
    viewer.wait_for_timeout(200)
    assert picture() == before
    viewer.screenshot(path=SCREENSHOTS / "viewer-grain.png")
  with opened(browser, (tmp_path / "plain.html").as_uri()) as viewer:
    viewer.wait_for_function("document.getElementById('facts').textContent")
    assert viewer.locator("#graining").is_hidden()


def test_the_element_is_a_placeholder_under_an_image(page):
  buffer = io.BytesIO()
  Image.new("RGB", (120, 80), "red").save(buffer, "PNG")
  Site.pages["red.png"] = ("image/png", buffer.getvalue())
  page.evaluate(
    "document.body.innerHTML = '<gjx-image id=e src=/alpha.gjx style=\"width: 240px\"><img id=i alt=x></gjx-image>'"
  )
  page.wait_for_function("e.complete")
  pixel = lambda: Image.open(io.BytesIO(page.locator("#e").screenshot())).convert("RGB").getpixel((120, 80))
  assert pixel() != (255, 0, 0)
  page.evaluate("i.src = '/red.png'")
  page.wait_for_function("i.complete")
  page.wait_for_timeout(100)
  assert pixel() == (255, 0, 0)
  assert page.evaluate("[i.clientWidth, i.clientHeight]") == [240, 160]


def test_a_thousand_damaged_files_end_in_words_or_pictures(page):
  files = [base64_of(data) for data in fuzz_format.mutations(fuzz_format.small_file(), 1000, seed=3)]
  counts = page.evaluate(
    "async (files) => {"
    + BYTES
    + """
    const counts = { load: 0, error: 0, slowest: 0, silent: 0 };
    for (const text of files) {
      const element = document.createElement("gjx-image");
      Object.assign(element.style, { width: "64px", height: "64px" });
      element.alt = "words";
      const address = URL.createObjectURL(new Blob([bytesOf(text)]));
      const began = performance.now();
      const ended = new Promise((resolve) => ["load", "error"].forEach((name) =>
        element.addEventListener(name, () => resolve(name))));
      element.src = address;
      document.body.replaceChildren(element);
      const end = await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 10000, "silent"))]);
      counts[end]++;
      if (end === "error" && element.shadowRoot.querySelector("span").textContent !== "words") counts.silent++;
      counts.slowest = Math.max(counts.slowest, performance.now() - began);
      URL.revokeObjectURL(address);
    }
    return counts;
  }""",
    files,
  )
  print(counts)
  assert counts["silent"] == 0 and counts["load"] > 50 and counts["error"] > 500


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
  """The address of a page on disk, written by the command."""
  folder = tmp_path_factory.mktemp("view")
  original = Path(__file__).parents[1] / "experiments" / "data" / "kodim23.png"
  with pytest.raises(SystemExit) as ended:
    cli.main(["view", str(GOLDEN / "photo.gjx"), "--html", str(folder / "v.html"), "--original", str(original)])
  assert ended.value.code == 0
  return (folder / "v.html").as_uri()


WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def shown(page):
  """What the viewer shows now, `[H, W, 3]`."""
  page.wait_for_timeout(150)
  return np.asarray(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB")).astype(int)


def zoom_of(page):
  page.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
  return int(page.locator("#zoom").inner_text().rstrip("%").replace(",", ""))


def test_the_viewer_zooms_by_wheel_and_keys_and_pans(browser, viewer):
  with opened(browser, viewer, viewport=WIDE, device_scale_factor=1) as page:
    page.check("[value=file]")
    before = shown(page)
    page.locator("#stage").focus()
    page.keyboard.press("1")
    assert zoom_of(page) == 100
    found = page.evaluate("[...document.querySelectorAll('.frame, canvas')].map((e) => [e.clientWidth, e.width])")
    assert found == [[768, None], [768, 768], [768, 768]]
    frame = np.asarray(Image.open(io.BytesIO(page.locator(".frame").screenshot())).convert("RGB"))
    alpha = np.full((*frame.shape[:2], 1), 255, np.uint8)
    check_alike(np.concatenate([frame, alpha], -1), cases("photo", PHOTO)[1])
    page.mouse.move(490, 300)
    for _ in range(40):
      page.mouse.wheel(0, -200)
    page.wait_for_timeout(200)
    assert page.locator("#zoom").inner_text() == "10,000%"
    page.screenshot(path=SCREENSHOTS / "viewer-100x.png")
    page.keyboard.press("0")
    page.mouse.move(1100, 780)
    within = (slice(10, -10), slice(10, -10))  # of the ring that shows the focus
    assert np.array_equal(shown(page)[within], before[within])
    for key in ("+", "+", "+", "ArrowRight", "ArrowDown"):
      page.keyboard.press(key)
    moved = shown(page)
    assert zoom_of(page) == round(100 * 965 / 768 * 1.25**3) and not np.array_equal(moved, before)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    page.mouse.move(400, 300)
    page.mouse.down()
    page.mouse.move(300, 250, steps=4)
    page.mouse.up()
    assert not np.array_equal(shown(page), moved)
    page.click("#fit")
    assert np.array_equal(shown(page)[within], before[within])


def test_the_viewer_tells_of_gaussians_and_bytes(browser, viewer):
  with opened(browser, viewer, viewport=WIDE) as page:
    page.check("[value=file]")
    all_of_them = shown(page)
    assert "2,205 of 2,205" in page.locator("#counted").inner_text()
    page.locator("#count").focus()
    page.locator("#count").fill("300")
    assert page.locator("#counted").inner_text().startswith("60 of 2,205")
    assert np.abs(shown(page) - all_of_them).mean() > 3
    page.screenshot(path=SCREENSHOTS / "viewer-few.png")
    page.locator("#count").fill("1000")
    page.locator("#layers").fill("1")
    assert page.locator("#counted").inner_text() == "137 of 2,205, 1 of 3 layers"
    page.locator("#layers").fill("3")
    assert np.array_equal(shown(page), all_of_them)
    page.locator("#stage").focus()
    page.keyboard.press("Enter")
    assert "Centre" in page.locator("#numbers").inner_text() and "Centre" in page.locator("#status").inner_text()
    page.mouse.move(300, 300)
    page.wait_for_timeout(100)
    picked = page.locator("#numbers").inner_text()
    page.mouse.move(500, 420)
    page.wait_for_timeout(100)
    assert page.locator("#numbers").inner_text() != picked
    page.check("#ellipses")
    assert np.abs(shown(page) - all_of_them).mean() > 20
    page.screenshot(path=SCREENSHOTS / "viewer-ellipses.png")
    sizes = [int(cell.replace(",", "")) for cell in page.locator("#bytes td:nth-child(2)").all_inner_texts()]
    assert abs(sum(sizes[:5]) - len(PHOTO)) < 3 and abs(sum(sizes[5:]) - len(PHOTO)) < 60


def test_the_viewer_tells_of_weights(browser, viewer):
  data = golden()["v3/weighted_layers.gjx"]
  with opened(browser, viewer, viewport=WIDE) as page:
    page.set_input_files("#open", GOLDEN / "v3" / "weighted_layers.gjx")
    page.wait_for_function("document.title === 'weighted_layers.gjx'")
    shown(page)
    page.locator("#stage").focus()
    page.keyboard.press("Enter")
    told = dict(zip(*(page.locator(f"#numbers {name}").all_inner_texts() for name in ("dt", "dd")), strict=True))
    log_weights = np.asarray(gaussjax.decode(data)[0].log_weights)
    index = int(told["Number"]) - 1
    assert log_weights[index] and float(told["Weight"]) == pytest.approx(np.exp(log_weights[index]), abs=0.006)
    rows = page.locator("#bytes tr").all_inner_texts()
    found = {row.split("\t")[0]: int(row.split("\t")[1].replace(",", "")) for row in rows[-8:]}
    bits = container.field_bits(container.read(data))
    labels = {"positions": "position", "weights": "weight", "scales": "scale", "angles": "turn", "colours": "color"}
    assert {name: found[name] for name in labels} == pytest.approx(
      {name: bits[field] / 8 for name, field in labels.items()}, abs=2
    )
    assert sum(found[name] for name in (*labels, "frame and header")) == pytest.approx(len(data), abs=3)
    page.screenshot(path=SCREENSHOTS / "viewer-weights.png")


def test_the_wipe_shows_the_original(browser, viewer):
  with opened(browser, viewer, viewport=WIDE) as page:
    middle = shown(page)
    page.screenshot(path=SCREENSHOTS / "viewer-wipe.png")
    page.check("[value=original]")
    original = shown(page)
    page.check("[value=file]")
    file = shown(page)
    half, edge = middle.shape[1] // 2, 40
    tags = middle.shape[0] - 100
    apart = lambda one, other: np.abs(one - other).mean()
    assert apart(middle[:tags, : half - edge], file[:tags, : half - edge]) < 0.1
    assert apart(middle[:tags, half + edge :], original[:tags, half + edge :]) < 0.1
    assert apart(original, file) > 1
    page.check("[value=wipe]")
    page.locator("#wipe").focus()
    page.keyboard.press("Home")
    assert apart(shown(page)[:tags, edge:], original[:tags, edge:]) < 0.1
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 3, 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], 220, steps=3)
    page.mouse.up()
    assert 74 < float(page.locator("#wipe").input_value()) < 76
    page.check("[value=beside]")
    shown(page)
    page.screenshot(path=SCREENSHOTS / "viewer-beside.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_viewer_on_a_narrow_screen(browser, viewer, scheme):
  with opened(browser, viewer, viewport=NARROW, device_scale_factor=2, color_scheme=scheme, has_touch=True) as page:
    shown(page)
    page.screenshot(path=SCREENSHOTS / f"viewer-narrow-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    before = zoom_of(page)
    send = page.context.new_cdp_session(page).send
    touch = lambda kind, points: send(
      "Input.dispatchTouchEvent",
      {"type": kind, "touchPoints": [{"x": x, "y": 300, "id": i} for i, x in enumerate(points)]},
    )
    touch("touchStart", [150, 240])
    for step in range(1, 6):
      touch("touchMove", [150 - 10 * step, 240 + 10 * step])
    touch("touchEnd", [])
    page.wait_for_timeout(100)
    assert 1.9 * before < zoom_of(page) < 2.4 * before  # 190 pixels between fingers that were 90 apart


def test_a_page_of_a_damaged_file_says_so(browser, tmp_path):
  (tmp_path / "v.html").write_text(pages.viewer(PHOTO[:-50], title="cut.gjx"))
  with opened(browser, (tmp_path / "v.html").as_uri(), viewport=WIDE) as page:
    assert page.locator("#message").inner_text() == "cut.gjx cannot be drawn: cut off: 2 of 3 layers are whole"
    page.keyboard.press("Tab")
    page.mouse.move(300, 300)
    page.set_input_files("#open", GOLDEN / "gray_sum.gjx")
    page.wait_for_function("document.title === 'gray_sum.gjx'")
    assert page.locator("#message").inner_text() == ""


def test_the_page_measures_itself(browser, viewer):
  with opened(browser, viewer + "?benchmark", viewport=WIDE) as page:
    page.wait_for_selector("#measured[data-measured]", state="attached", timeout=120_000)
    measured = json.loads(page.locator("#measured").get_attribute("data-measured"))
    print(measured)
    assert measured["by"] == "float" and measured["decode"] > 0 and measured["frames"].keys() == {"2000", "2205"}


def test_a_report_sorts_and_wipes(browser, tmp_path):
  red, blue = (Image.new("RGB", (200, 100), color) for color in ("red", "blue"))
  addresses = []
  for picture in (red, blue):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    addresses.append(pages.address(buffer.getvalue(), "image/png"))
  rows = [("b", 2.5, reports.Pair(*addresses, "blue")), ("a", None, None), ("c", 10.0, None)]
  table = reports.Table(("name", "dB", "pair"), rows)
  curves = reports.Plot("x", "y", {"one": [(1, 2), (3, 4)]})
  (tmp_path / "r.html").write_text(reports.report("report", [("Rows", table), ("Curve", curves)]))
  with opened(browser, (tmp_path / "r.html").as_uri(), viewport=NARROW, color_scheme="dark") as page:
    names = lambda: page.locator("td:first-child").all_inner_texts()
    page.get_by_role("button", name="dB").click()
    assert names() == ["c", "b", "a"] and page.locator("th[aria-sort=descending]").inner_text().startswith("dB")
    page.get_by_role("button", name="dB").click()
    assert names() == ["b", "c", "a"]
    page.get_by_role("button", name="name").press("Enter")
    assert names() == ["c", "b", "a"]
    page.get_by_role("slider").fill("20")
    pixels = Image.open(io.BytesIO(page.locator(".pair").screenshot())).convert("RGB")
    assert pixels.getpixel((20, 40)) == (0, 0, 255) and pixels.getpixel((180, 40)) == (255, 0, 0)
    page.screenshot(path=SCREENSHOTS / "report.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_an_exported_svg_is_the_sum_that_it_was_made_of(browser, tmp_path):
  gaussians = scene(30, 60, 90, blend=blends.accumulated_sum, log_scale=(1.5, 0.4))
  canvas = dataclasses.replace(gaussians.canvas, background=np.float32([0.1, 0.05, 0.2]))
  gaussians = gaussians._replace(colors=gaussians.colors * 0.3, canvas=canvas)  # sums below 1
  (tmp_path / "p.svg").write_text(svg.dumps(gaussians))
  with opened(browser, (tmp_path / "p.svg").as_uri(), viewport={"width": 90, "height": 60}) as page:
    shown = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")) / 255
  apart = np.abs(shown - np.clip(gaussjax.render(gaussians), 0, 1))
  assert apart.mean() < 2 / 255 and apart.max() < 12 / 255  # each ellipse is rounded to bytes on its own


def test_a_page_has_the_viewer_in_a_frame(browser, viewer, tmp_path):
  (tmp_path / "own.html").write_text(f"<h1>Own</h1><iframe src='{viewer}?plain' width=600 height=440></iframe>")
  with opened(browser, (tmp_path / "own.html").as_uri(), viewport={"width": 700, "height": 560}) as page:
    frame = page.frame_locator("iframe")
    frame.locator("#in").click()
    assert not frame.locator("header").is_visible() and not frame.locator("aside").is_visible()
    assert frame.locator("#stage").bounding_box()["height"] > 380
    page.screenshot(path=SCREENSHOTS / "framed.png")


def test_elements_outlive_a_lost_context(page):
  page.evaluate("""() => {
    const own = HTMLCanvasElement.prototype.getContext;
    window.contexts = [];
    HTMLCanvasElement.prototype.getContext = function (kind, options) {
      const found = own.call(this, kind, options);
      if (kind === "webgl2" && !contexts.includes(found)) contexts.push(found);
      return found;
    };
  }""")
  boxes(page, "<gjx-image id=a src=/alpha.gjx></gjx-image><gjx-image id=b src=/gray_sum.gjx></gjx-image>")
  drawn = page.evaluate("[...document.images, a, b].map((e) => e.canvas.toDataURL())")
  page.evaluate("window.losing = contexts.at(-1).getExtension('WEBGL_lose_context'); losing.loseContext()")
  page.wait_for_timeout(100)
  page.evaluate("a.style.width = '200px'; b.insertAdjacentHTML('afterend', '<gjx-image id=c src=/alpha.gjx>')")
  page.wait_for_function("c.complete")
  assert page.evaluate("b.canvas.toDataURL()") == drawn[1]  # what was drawn stays
  page.evaluate("losing.restoreContext()")
  page.wait_for_function("a.canvas.width === 200 && c.canvas.width === 120")
  assert page.evaluate("[c.canvas.toDataURL(), b.canvas.toDataURL()]") == drawn
  assert page.evaluate("contexts.length") == 2  # the one that asks what there is, and the one that draws


def test_without_webgl_pages_are_drawn_by_hand(browser, site, viewer):
  flags = [*FLAGS.split()[:6], "--disable-3d-apis"]
  plain = browser.browser_type.launch(executable_path=CHROMIUM, headless=True, args=flags)
  with opened(plain, f"{site}/blank.html") as page:
    page.wait_for_function("window.gjx")
    boxes(page, "<gjx-image id=a src=/photo.gjx alt=parrots></gjx-image>")
    assert page.evaluate("gjx.ability()") == "2d"
    shot = np.asarray(Image.open(io.BytesIO(page.locator("#a").screenshot())).convert("RGB"))
    check_alike(np.dstack([shot, np.full(shot.shape[:2], 255, np.uint8)]), cases("photo", PHOTO)[1])
  with opened(plain, viewer, viewport=NARROW) as page:
    page.click("#in")
    assert np.std(shown(page)) > 20
  plain.close()
