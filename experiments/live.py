"""A fit as it goes on, on a page of this machine alone: its last checkpoint drawn, its figures, its curve."""

import functools
import http.server
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Record = dict[str, float]
HOST = "127.0.0.1"  # no other machine is to see it
BODY = """<p class="note" id="told">Compiling.</p>
<img id="picture" alt="The picture as it is now" style="max-width: 100%">
<h2>PSNR</h2>
<div id="curve"></div>"""


class Live:
  """A server of one fit. `draw(checkpoint)` makes the PNG of a checkpoint's file."""

  def __init__(self, folder: Path, total: int, draw: Callable[[Path], bytes], port: int = 0) -> None:
    self.folder, self.total, self.done = folder, total, False
    self.draw = functools.lru_cache(maxsize=1)(draw)
    self.history: list[Record] = []
    self.drawing = threading.Lock()
    handler = functools.partial(_Handler, self)
    self.server = http.server.ThreadingHTTPServer((HOST, port), handler)  # type: ignore[arg-type]
    self.address = f"http://{HOST}:{self.server.server_port}/"
    threading.Thread(target=self.server.serve_forever, daemon=True).start()

  def add(self, record: Record) -> None:
    """What the fit says of itself now."""
    self.history.append(dict(record))

  def close(self) -> None:
    """Ends the server."""
    self.done = True
    self.server.shutdown()
    self.server.server_close()

  def answer(self, name: str) -> tuple[str, bytes] | None:
    """(type, bytes) of what is asked for, None for what there is not."""
    from gaussjax.web import reports

    if name == "/":
      page = reports.page("A fit as it goes on", BODY, "live.js", connect=" 'self'; connect-src 'self'")
      return "text/html; charset=utf-8", page.encode()
    if name == "/progress.json":
      return "application/json", json.dumps(self.progress()).encode()
    if name == "/curve.svg":
      points = [(record["step"], record["psnr"]) for record in self.history]
      return "image/svg+xml", reports.plot(reports.Plot("step", "PSNR (dB)", {"PSNR": points})).encode()
    if name == "/picture.png":
      return self.picture()
    return None

  def progress(self) -> dict[str, Any]:
    """The last record in words."""
    if not self.history:
      return {"step": -1, "words": "Compiling.", "done": self.done}
    last = self.history[-1]
    words = f"Step {last['step']:.0f} of {self.total}, {last['psnr']:.2f} dB, {last['eta_seconds']:.0f} s left"
    return {"step": last["step"], "words": words, "done": self.done}

  def picture(self) -> tuple[str, bytes] | None:
    """The PNG of the newest checkpoint."""
    from gaussjax.fitting import checkpoints

    with self.drawing:
      for path in checkpoints.kept(self.folder):
        try:
          return "image/png", self.draw(path)
        except (OSError, ValueError):  # replaced by a newer one meanwhile
          continue
    return None


class _Handler(http.server.BaseHTTPRequestHandler):
  def __init__(self, live: Live, *arguments: Any) -> None:
    self.live = live
    super().__init__(*arguments)

  def do_GET(self) -> None:
    """Answers this machine's own browsers: a page elsewhere whose name leads here is refused."""
    port = self.live.server.server_port
    known = self.headers.get("Host") in (f"{HOST}:{port}", f"localhost:{port}")
    found = self.live.answer(self.path.split("?")[0]) if known else None
    self.send_response(200 if found else 404 if known else 403)
    kind, body = found or ("text/plain", b"")
    for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")):
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *_: Any) -> None:
    """Says nothing: the terminal has the fit's own words."""


def drawn(path: Path, *, recipe: Any, height: int, width: int) -> bytes:
  """The PNG of the set in a fit's checkpoint. Raises ValueError and OSError for what is none."""
  import gaussjax
  from gaussjax import files, image_io

  header, leaves = files.read_npz(files.read_bytes(path))
  fields: dict[str, Any]
  begin = "[0].params."  # of the names of what is fitted; the rest is the optimiser's
  places = {name.split()[0].split(".")[-1]: i for i, name in enumerate(header["names"]) if name.startswith(begin)}
  fields = {name: leaves[f"leaf{i}"] for name, i in places.items()}
  kinds = gaussjax.Euler, gaussjax.Cholesky, gaussjax.LogCholesky
  kind = next((kind for kind in kinds if set(kind._fields) <= set(fields)), None)
  if kind is None:
    raise ValueError(f"got {path}, which is no checkpoint of a fit")
  gaussians = gaussjax.Gaussians(
    fields["means"],
    kind(*(fields[name] for name in kind._fields)),
    fields["colors"],
    fields.get("log_weights"),
    gaussjax.Canvas(height, width, fields["background"], recipe.blend),
    fields.get("slopes"),
  )
  return image_io.image_bytes(image_io.as_uint8(gaussjax.render(gaussians)), ".png")
