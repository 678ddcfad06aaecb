"""`gaussjax view`, `export` and `import`: a file for the eye, and for other programs."""

import argparse
from pathlib import Path
from typing import Any

from gaussjax.cli.decode import read_picture, shape_of
from gaussjax.cli.streams import (
  PICTURE_SUFFIXES,
  check_output,
  named,
  picture_bytes,
  read_input,
  say,
  start_jax,
  write_output,
)

PAGE_SUFFIXES = (".html", ".htm")
MODULE_SUFFIXES = (".js", ".mjs")
EXPORT_SUFFIXES = (".ply", ".svg")


def run_view(arguments: argparse.Namespace) -> None:
  asked = arguments.output, arguments.html, arguments.module
  if asked == (None, None, None):
    raise ValueError("got neither a PNG nor --html nor --module, expected one of them to write")
  if "-" in asked:
    raise ValueError("got - as the output, expected a name, since several files are written")
  if arguments.open and arguments.html is None:
    raise ValueError("got --open without --html, expected the name of a page to open")
  if arguments.input == arguments.original == "-":
    raise ValueError("got - twice, expected standard input for one of the two")
  wanted = _view_outputs(arguments)
  inputs = arguments.input, arguments.original or "-"
  for path, suffixes in wanted.items():
    check_output(path, arguments, suffixes, *inputs)
  gaussjax = start_jax()
  data = read_input(arguments.input)
  with named(arguments.input):
    gaussians, header = gaussjax.decode(data)
  original = _original(gaussjax, arguments.original, header)
  figures = dict[str, Any]()
  if arguments.output is not None:
    figures |= _view_pictures(gaussjax, arguments.output, gaussians, header, original)
  if arguments.html is not None:
    figures["page"] = arguments.html
    write_output(arguments.html, _page(arguments.input, data, original).encode())
  if arguments.module is not None:
    from gaussjax.web import pages

    figures["module"] = arguments.module
    write_output(arguments.module, pages.source("gjx.js").encode())
  say(arguments, figures)
  if arguments.open:
    _open(arguments.html)


def _view_outputs(arguments: argparse.Namespace) -> dict[str, tuple[str, ...]]:
  """Names of the files to be written, with the suffixes that they may have."""
  wanted = dict[str, tuple[str, ...]]()
  if arguments.output is not None:
    wanted |= dict.fromkeys((arguments.output, _ellipses(Path(arguments.output))), PICTURE_SUFFIXES)
  if arguments.html is not None:
    wanted[arguments.html] = PAGE_SUFFIXES
  if arguments.module is not None:
    wanted[arguments.module] = MODULE_SUFFIXES
  return wanted


def _ellipses(output: Path) -> str:
  return str(output.with_name(f"{output.stem}-ellipses{output.suffix}"))


def _original(gaussjax: Any, path: str | None, header: Any) -> Any:
  """The picture that a file was made from, None without a path. Raises ValueError for one of another size."""
  if path is None:
    return None
  original = read_picture(gaussjax, path)
  if original.shape != (header.height, header.width, header.channels):
    expected = f"{header.width} x {header.height} pixels and {header.channels} channels"
    raise ValueError(f"got {path} of {shape_of(original)}, expected {expected}")
  return original


def _view_pictures(gaussjax: Any, output: str, gaussians: Any, header: Any, original: Any) -> dict[str, str]:
  """Writes the comparison and the ellipses: their names."""
  from gaussjax import report

  picture = gaussjax.add_grain(gaussjax.render(gaussians), header)
  shown = picture if original is None else report.comparison(original, picture)
  magnify = max(1, 1536 // max(picture.shape[:2]))
  ellipses = _ellipses(Path(output))
  outlines = report.ellipses(gaussians, picture, magnify=magnify)
  write_output(output, picture_bytes(output, shown))
  write_output(ellipses, picture_bytes(ellipses, outlines))
  return {"picture": output, "ellipses": ellipses}


def _page(name: str, data: bytes, original: Any) -> str:
  """The viewer's page of a file; its original as PNG, without what else its own file says."""
  from gaussjax.web import pages

  shown = "" if original is None else pages.address(picture_bytes("-", original), "image/png")
  return pages.viewer(data, title="standard input" if name == "-" else Path(name).name, original=shown)


def _open(path: str) -> None:
  """Has a browser show a page. Raises ValueError where there is none."""
  import webbrowser

  if not webbrowser.open(Path(path).absolute().as_uri()):
    raise ValueError(f"found no browser to open {path} with; it is written, open it by hand")


def run_export(arguments: argparse.Namespace) -> None:
  check_output(arguments.output, arguments, EXPORT_SUFFIXES, arguments.input)
  start_jax()
  from gaussjax.exchange import ply, svg
  from gaussjax.gjx import store

  gaussians = store.load(arguments.input)
  written = svg.dumps(gaussians).encode() if arguments.output.lower().endswith(".svg") else ply.dumps(gaussians)
  write_output(arguments.output, written)
  say(arguments, {"gaussians": len(gaussians.means), "bytes": len(written)}, to_stderr=arguments.output == "-")


def run_import(arguments: argparse.Namespace) -> None:
  from gaussjax.gjx import store

  if arguments.output == "-":
    raise ValueError("got - as the output, expected a name, whose end says of which kind the file is to be")
  check_output(arguments.output, arguments, store.SUFFIXES, arguments.input)
  gaussjax = start_jax()
  from gaussjax import geometry
  from gaussjax.exchange import archives, foreign

  data = read_input(arguments.input)
  with named(arguments.input):
    gaussians = foreign.gaussians(archives.read(data), arguments.height, arguments.width)
  gaussjax.save(arguments.output, gaussians)
  say(arguments, {"gaussians": len(gaussians.means), "blend": geometry.canvas_of(gaussians).blend.name})
