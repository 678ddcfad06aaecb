"""Pages of reports, and a fit's page as it goes on."""

import functools
import html.parser
import http.client
import json

import numpy as np
from scenes import picture

import gaussjax
from experiments import live, rate_report, rowfile, sweep, thumbnails
from gaussjax import geometry, image_io
from gaussjax.web import pages, reports

SETTING = sweep.Setting("balanced", 20, 0, 10, None)


class Reader(html.parser.HTMLParser):
  """What a page has: elements by name, and whether each is closed."""

  def __init__(self, text):
    super().__init__()
    self.open, self.found, self.text = [], {}, text
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.found.setdefault(tag, []).append(dict(attrs))
    if tag not in ("meta", "link", "img", "input"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag, tag


def read(text):
  """A page that is well formed and takes nothing from elsewhere."""
  found = Reader(text)
  assert not found.open
  addresses = [image["src"] for image in found.found.get("img", [])]
  assert all(address.startswith("data:") for address in addresses)
  assert "http:" not in text and "https:" not in text
  return found


def test_a_report_has_tables_curves_and_pairs_and_escapes_what_it_is_given():
  rows = [("<b>", 1, 0.12345, None), ("b", 2, float("nan"), reports.Pair("data:,o", "data:,d", "a & b"))]
  curves = {"one": [(1, 2.0), (10, 3.0)], "<two>": [(5, 2.5)], "none": [(0, float("nan"))]}
  page = read(
    reports.report(
      "<title>",
      [
        ("Table", reports.Table(("name", "N", "dB", "pair"), rows)),
        ("Lines", reports.Plot("x", "y", curves)),
        ("Logarithms", reports.Plot("x", "y", curves, log_x=True)),
        ("Nothing", reports.Plot("x", "y", {})),
        ("One point", reports.Plot("x", "y", {"p": [(3, 3)]})),
        ("Words", "1 < 2"),
      ],
    )
  )
  assert "<b>" not in page.text and "&lt;two&gt;" in page.text and "1 &lt; 2" in page.text
  assert len(page.found["tr"]) == 3 and len(page.found["svg"]) == 3 and len(page.found["img"]) == 2
  assert "0.123" in page.text and "nan" not in page.text.split("<svg")[1]
  assert all(0 <= float(circle["cx"]) <= reports.WIDTH for circle in page.found["circle"])


def test_the_runners_write_pages_with_the_pictures_that_were_kept(tmp_path):
  image = picture(40, 60)
  rows = []
  for name in ("a1.png", "a2.png"):
    curve = [(0, 0.5, 20.0), (10, 2.0, 30.0)]
    figures = {"num_gaussians": 20, "psnr": 30.0, "ssim": 0.9, "seconds": 2.0, "curve": curve}
    rows.append({"image": name, "setting": SETTING._asdict(), **figures})
  thumbnails.keep(tmp_path / "s-pictures", sweep.name_of("a1.png", SETTING), image, image / 2)
  sweep.summarise(rows, tmp_path / "s.png")
  page = read((tmp_path / "s.html").read_text())
  assert len(page.found["tr"]) == 3 and len(page.found["img"]) == 2
  points = [
    {
      "image": "a1.png",
      "codec": codec,
      "setting": setting,
      "effort": effort,
      "bpp": bpp,
      "psnr": psnr,
      "seconds": 1.0,
    }
    for codec, effort, first in (("gaussjax", 4, 0.1), ("jpeg", None, 0.2))
    for setting, bpp, psnr in ((0.1, first, 28.0), (0.2, 2 * first, 30.0), (0.3, 3 * first, 31.0))
  ]
  thumbnails.keep(tmp_path / "r-pictures", "a1-0.2-4", np.zeros((900, 300, 1)), np.ones((900, 300, 1)))
  rate_report.summarise(points, tmp_path / "r.png")
  page = read((tmp_path / "r.html").read_text())
  assert "-50.00" in page.text and len(page.found["img"]) == 2
  small = image_io.read_image((tmp_path / "r-pictures" / "a1-0.2-4-original.jpg").read_bytes(), name="small")
  assert small.shape[:2] == (320, 107)
  assert rowfile.latest(points, ("setting", "codec")) == points


def ask(shown, path, **headers):
  connection = http.client.HTTPConnection("127.0.0.1", shown.server.server_port)
  connection.request("GET", path, headers=headers)
  response = connection.getresponse()
  answer = response.status, response.read()
  connection.close()
  return answer


def test_a_fit_is_shown_as_it_goes_on_to_this_machine_alone(tmp_path):
  image = picture()
  recipe = gaussjax.Recipe(parameterize=geometry.to_cholesky, policy=None)
  draw = functools.partial(live.drawn, recipe=recipe, height=20, width=26)
  shown = live.Live(tmp_path, 20, draw)
  try:
    assert shown.server.server_address[0] == "127.0.0.1"
    assert ask(shown, "/picture.png")[0] == 404 and json.loads(ask(shown, "/progress.json")[1])["step"] == -1
    stop, checkpoint = gaussjax.Stop(max_steps=20), gaussjax.Checkpoint(tmp_path, every_steps=10)
    result = gaussjax.fit(
      image, num_gaussians=12, preset=recipe, stop=stop, checkpoint=checkpoint, progress_fn=shown.add
    )
    status, png = ask(shown, "/picture.png?3")
    expected = image_io.as_uint8(gaussjax.render(result.gaussians)) / 255
    assert status == 200 and np.abs(image_io.read_image(png, name="it") - expected).max() < 0.01
    assert json.loads(ask(shown, "/progress.json")[1])["words"].startswith("Step 20 of 20")
    assert b"<polyline" in ask(shown, "/curve.svg")[1] and b"connect-src 'self'" in ask(shown, "/")[1]
    assert ask(shown, "/../fit.py")[0] == 404
    assert ask(shown, "/", Host="elsewhere.example")[0] == 403
  finally:
    shown.close()


def test_programs_of_pages_are_one_program():
  script = pages.script("gjx.js", "viewer.js")
  assert "export " not in script.replace("export(", "") and "import {" not in script.split("const LIMITS")[1]
