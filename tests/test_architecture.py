"""The order of imports, the public names, and what importing does: the design, held by a test."""

import ast
import graphlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gaussjax

PACKAGE = Path(gaussjax.__file__).parent
EXPERIMENTS = PACKAGE.parent / "experiments"

# A room may import from itself and from rooms of earlier places in this chain.
CHAIN = (
  {"types", "errors"},
  {"numerics", "arguments", "files", "startup"},
  {"geometry", "image_io"},
  {"quality", "rendering"},
  {"fitting"},
  {"contrib", "gjx", "exchange"},
  {"report", "engines", "web", "progress"},
  {"cli"},
)
PLACE = {room: place for place, rooms in enumerate(CHAIN) for room in rooms}
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
# Who may touch files, and who images on disk.
MAY_TOUCH_FILES = {
  "files",
  "image_io",
  "checkpoints",
  "report",
  "imageio_plugin",
  "startup",
  "store",
  "engines",
  "cli",
  "lpips",
  "archives",  # io, for bytes alone
}
MAY_TOUCH_IMAGES = {"image_io", "imageio_plugin", "pillow_plugin"}


def imported(path):
  """(modules of gaussjax that a file imports, as dotted names in it; the first names of all others)."""
  own, foreign = set(), set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      foreign |= {alias.name.split(".")[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      first, _, rest = (node.module or "").partition(".")
      if first == "gaussjax":
        own |= {f"{rest}.{alias.name}" if rest in PLACE else rest or alias.name for alias in node.names}
      else:
        foreign.add(first)
  return own, foreign


def room_of(path):
  """The first name of a module within the package."""
  return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_chain(path):
  own, foreign = imported(path)
  for name in own:
    there = name.split(".")[0]
    assert there == room_of(path) or PLACE[there] < PLACE[room_of(path)], name
  assert "absl" not in foreign
  names = {path.stem, room_of(path)}
  assert names & MAY_TOUCH_IMAGES or not foreign & {"imageio", "PIL"}
  assert names & MAY_TOUCH_FILES or not foreign & {"os", "pathlib", "io", "shutil", "tempfile"}


def test_imports_within_a_room_make_no_circle():
  """Nor between rooms, which the chain sees to."""
  graph = {}
  for path in MODULES:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    graph[name] = {target for target in imported(path)[0] if target in PLACE or "." in target}
  graphlib.TopologicalSorter({name: deps & set(graph) for name, deps in graph.items()}).prepare()


def test_the_loop_knows_nothing_of_rendering():
  own, _ = imported(PACKAGE / "fitting" / "loop.py")
  assert {name.split(".")[0] for name in own - {"fitting.guards"}} == {"types", "errors"}


def test_every_public_name_is_there_and_documented():
  for name in gaussjax.__all__:
    value = getattr(gaussjax, name)
    assert inspect.getdoc(value), name
    if inspect.ismodule(value):
      for member, function in inspect.getmembers(value, inspect.isfunction):
        if function.__module__ == value.__name__ and not member.startswith("_"):
          assert inspect.getdoc(function), f"{name}.{member}"


def test_functions_stay_short():
  for path in [*PACKAGE.rglob("*.py"), *EXPERIMENTS.rglob("*.py")]:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.FunctionDef):
        assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name}"


def test_native_code_serves_every_python_by_whichever_it_was_compiled():
  # A '#' in a format of Py_BuildValue or PyArg_Parse is one function when compiled by 3.13, another before it, and
  # each Python refuses the other's: the stable ABI does not cover it.
  sources = list(PACKAGE.rglob("native/*.cc"))
  assert sources
  for path in sources:
    assert not re.search(r'Py\w+\([^;]*"[^"]*#[^"]*"', path.read_text()), path.name


def test_importing_defines_names_and_nothing_else():
  code = "import sys, gaussjax; gaussjax.__dir__(); assert 'jax' not in sys.modules"
  subprocess.run([sys.executable, "-c", code], check=True)
  code = (
    "import gaussjax, jax; before = dict(jax.config.values)\n"
    "[getattr(gaussjax, name) for name in gaussjax.__all__]\n"
    "from jax._src import xla_bridge; assert not xla_bridge._backends, 'a device was touched'\n"
    "assert dict(jax.config.values) == before"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
