"""The documents: their examples and notebooks run, their commands are known, their links lead somewhere.

Pages are read by people who copy from them. Only how long things take is exchanged: numbers of Gaussians and steps,
and one small picture for all pages, so that programs are found again.
"""

import json
import re
import shlex
from pathlib import Path

import jax
import pytest
from scenes import quick_effort

import gaussjax
from experiments import notebooks
from gaussjax.cli import parser
from gaussjax.fitting import loop, recipes
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
  r"bpp=[0-9.]+": "bpp=0.9",
  r"size=curves.*?, effort": "size=346, effort",  # as many as bpp=0.9
  r"in \(150, 300, 600\)": "in (60,)",
  r"in \(0\.0, 0\.01, [0-9., ]+\)": "in (0.0, 0.01)",
  r"reshape\(192, 2, 256, 2, 3\)": "reshape(48, 8, 64, 8, 3)",
  r"= 150, 40, 214, 88": "= 10, 10, 26, 22",
}


@pytest.fixture(scope="module")
def photograph():
  """A piece of the photograph, 48 x 64."""
  image = gaussjax.read_image(ROOT / "experiments" / "data" / "kodim23.png")
  return image[60:444, 80:592].reshape(48, 8, 64, 8, 3).mean((1, 3))


@pytest.fixture
def quickly(tmp_path, monkeypatch, photograph):
  """In a folder with photo.png. Presets and efforts are one recipe of ten steps, so that all find its programs."""
  effort = quick_effort(10)
  recipe = effort.recipe._replace(steps=10, policy=None)
  for preset in recipes.PRESETS:
    monkeypatch.setitem(recipes.PRESETS, preset, recipe)
  monkeypatch.setattr(encoding, "EFFORTS", (effort._replace(recipe=recipe),) * 10)
  monkeypatch.setattr(loop, "CONTROL_EVERY", 5)
  monkeypatch.setattr(loop, "LOG_EVERY", 5)
  monkeypatch.chdir(tmp_path)
  gaussjax.write_image("photo.png", photograph)
  jax.config.update("jax_disable_most_optimizations", True)  # little is computed, and much compiled
  yield
  jax.config.update("jax_disable_most_optimizations", False)


def smaller(code):
  """Code with smaller numbers."""
  for large, small in SMALLER.items():
    code = re.sub(large, small, code)
  return code


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name)
def test_the_examples_of_a_page_run(page, quickly):
  code = smaller("\n".join(blocks(page.read_text(), "python")))
  exec(compile(code, name(page), "exec"), {"__name__": "page"})  # the examples are ours


def test_the_notebooks_run_and_are_kept_with_their_outputs(quickly, monkeypatch):
  monkeypatch.chdir(DOCS / "notebooks")
  paths = sorted(Path.cwd().glob("*.ipynb"))
  assert len(paths) >= 3
  for path in paths:
    kept = json.loads(path.read_text())
    pictures = [
      kind for cell in kept["cells"] for output in cell.get("outputs", []) for kind in output.get("data", {})
    ]
    assert "image/jpeg" in pictures and "image/png" in pictures, path.name
    notebooks.run(kept, smaller)


def test_every_public_name_has_its_place_in_the_reference():
  reference = "\n".join(path.read_text() for path in sorted((DOCS / "api").glob("*.md")))
  for public in gaussjax.__all__:
    assert f":: gaussjax.{public}\n" in reference or f":: gaussjax.{public}." in reference, public


def test_the_commands_of_the_documents_are_known():
  """Each parses, but for names of files that are not there; nothing is run."""
  found = [
    (name(page), shlex.split(line, comments=True)[1:])
    for page in PAGES
    for line in page.read_text().splitlines()
    if re.match(r"(    )?gaussjax [a-z]+( |$)", line)
  ]
  assert len(found) > 20
  for page, words in found:
    try:
      parser().parse_args(words)
    except SystemExit as error:
      pytest.fail(f"{page}: gaussjax {' '.join(words)} is refused ({error})")


def test_links_lead_to_files_and_headings():
  for page in PAGES:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
      if re.match(r"[a-z]+:", target):
        continue
      file, _, anchor = target.partition("#")
      path = (page.parent / file).resolve() if file else page
      assert path.exists(), f"{name(page)}: {target}"
      if anchor:
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in anchors, f"{name(page)}: {target}"


def test_lines_of_prose_stay_short():
  for page in PAGES:
    long = [line for line in page.read_text().splitlines() if len(line) > 110 and not line.startswith("|")]
    assert not long, f"{name(page)}: {long[0]}"
