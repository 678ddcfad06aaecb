"""The documents: their examples and notebooks run as they stand, their commands are known, their links lead somewhere.

Pages are read by people who copy from them. What is exchanged is only how long a fit takes: numbers of Gaussians and
steps, and one small picture for all pages, so that programs are found again.
"""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from scenes import quick_effort

import gaussjax
from gaussjax.cli import parser
from gaussjax.fitting import recipes
from gaussjax.gjx import encoding

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
  path
  for path in [ROOT / "README.md", ROOT / "BUILD_NOTES.md", *DOCS.rglob("*.md")]
  if "log" not in path.parts and ".ipynb_checkpoints" not in path.parts
)
name = lambda path: str(path.relative_to(ROOT))
blocks = lambda text, language: re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)
# README.md's have a test of their own in test_doors.py, and those of these two go on from code of the reader's.
UNTRIED = {"README.md", "docs/gpu.md"}
WITH_EXAMPLES = [path for path in PAGES if blocks(path.read_text(), "python") and name(path) not in UNTRIED]
SMALLER = {
  r"num_gaussians=[0-9_]+": "num_gaussians=60",
  r"\b(max_steps|steps)=[0-9_]+": r"\1=10",
  r"(?<=in )range\([0-9_]+\)": "range(3)",
  r"bpp=[0-9.]+": "bpp=3.0",
}


@pytest.fixture(scope="module")
def photograph():
  """A piece of the photograph, 48 x 64."""
  image = gaussjax.read_image(ROOT / "experiments" / "data" / "kodim23.png")
  return image[60:444, 80:592].reshape(48, 8, 64, 8, 3).mean((1, 3))


@pytest.fixture
def quickly(tmp_path, monkeypatch, photograph):
  """In a folder with photo.png; presets and efforts take ten steps, from a start that is no fit of its own."""
  start = recipes.Recipe().initialize
  for preset, recipe in recipes.PRESETS.items():
    monkeypatch.setitem(recipes.PRESETS, preset, recipe._replace(initialize=start, steps=10))
  monkeypatch.setattr(encoding, "EFFORTS", (quick_effort(10),) * 10)
  monkeypatch.chdir(tmp_path)
  gaussjax.write_image("photo.png", photograph)


def run(code, where):
  """Runs a page's code with smaller numbers; its names."""
  for large, small in SMALLER.items():
    code = re.sub(large, small, code)
  names = {"__name__": "page"}
  exec(compile(code, where, "exec"), names)  # the examples are ours
  return names


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name)
def test_the_examples_of_a_page_run(page, quickly):
  run("\n".join(blocks(page.read_text(), "python")), name(page))
