"""The order of imports, the public names, and what importing does: the design, held by a test."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import gaussjax

PACKAGE = Path(gaussjax.__file__).parent
EXPERIMENTS = PACKAGE.parent / "experiments"

# A module may import those of lower levels only.
LEVELS = [
  {"types", "files", "entropy", "startup", "clock"},
  {"numerics", "image_io"},
  {"similarity", "lpips", "geometry", "optimizers"},
  {"metrics", "losses", "initializers", "quantization"},
  {"rendering", "guards", "codec"},
  {"tiling.lists", "fitting", "checkpoints", "density", "solvers", "container", "rate"},
  {"tiling.sums"},
  {"tiling"},
  {"drawing"},
  {"resumption"},
  {"recipes", "report"},
  {"passes", "rounding"},
  {"compression"},
  {"gjx_io"},
  {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
MAY_TOUCH_FILES = {"files", "image_io", "checkpoints", "report", "gjx_io", "startup", "cli", "lpips"}


def imported(path):
  """The modules of gaussjax that a file imports, and all others by their first name."""
  own, foreign = set(), set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      foreign |= {alias.name.split(".")[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      first, _, rest = (node.module or "").partition(".")
      if first == "gaussjax":
        own |= {rest} if rest else {alias.name for alias in node.names}
      else:
        foreign.add(first)
  return own, foreign


def path_of(module):
  """The file of a module, the `__init__.py` of a folder."""
  path = PACKAGE / module.replace(".", "/")
  return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize("module", sorted(LEVEL))
def test_imports_go_down(module):
  own, foreign = imported(path_of(module))
  assert all(LEVEL[name] < LEVEL[module] for name in own)
  assert "absl" not in foreign
  if module not in ("image_io", "gjx_io"):
    assert not foreign & {"imageio", "PIL"}
  if module not in MAY_TOUCH_FILES:
    assert not foreign & {"os", "pathlib", "io", "shutil", "tempfile"}


def test_fitting_knows_nothing_of_rendering():
  assert imported(PACKAGE / "fitting.py")[0] == {"types", "guards"}


def test_every_module_has_a_level():
  assert set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"} == {path_of(module) for module in LEVEL}


def test_experiments_use_public_names_only():
  public = set(gaussjax.__all__)
  for path in EXPERIMENTS.rglob("*.py"):
    own, _ = imported(path)
    assert own <= public, path


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
