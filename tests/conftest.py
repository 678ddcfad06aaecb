"""Settings of all tests. Each test file is a module's, or a promise's."""

import os
import shutil
import tempfile

import hypothesis
import pytest
from PIL import Image

from gaussjax import startup

# The workers, and the processes that tests start, share compiled programs, and leave the user's own alone.
OWNER = "PYTEST_XDIST_WORKER" not in os.environ
if OWNER:
  os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="gaussjax-tests-")
startup.prepare_jax()

import jax  # noqa: E402

from gaussjax.gjx import search  # noqa: E402
from gaussjax.rendering import renderer, scanlines  # noqa: E402

# What a program computes is tested here, and most of the time of these tests was compilation: they take half of it
# without. Processes that tests start compile as they do for users.
jax.config.update("jax_disable_most_optimizations", True)

# Compilation makes the first example slow, and machines differ: no test depends on timing.
hypothesis.settings.register_profile("quiet", deadline=None, max_examples=20, derandomize=True)
hypothesis.settings.load_profile("quiet")


# Workers take whole files, one after the other: the longest come first, so that all end at about the same time.
LONGEST = (
  "cli",
  "doors",
  "tiling",
  "resumption",
  "contrib",
  "engines",
  "scanlines",
  "fitting",
  "runner",
  "density",
)


def pytest_collection_modifyitems(items):
  """Puts the longest files first; the order within a file stays."""
  order = {f"test_{name}": place for place, name in enumerate(LONGEST)}
  items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


def pytest_unconfigure():
  """Removes what was compiled."""
  if OWNER:
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture
def x64():
  """Double precision for the length of a test."""
  with jax.enable_x64(True):
    yield


@pytest.fixture
def over_lists(monkeypatch):
  """Every set is drawn over lists, as where there is no native code, small ones too."""
  monkeypatch.setattr(scanlines, "serves", lambda *_: False)
  monkeypatch.setattr(renderer, "DENSE_EVALUATIONS", 0)


@pytest.fixture(scope="module")
def few():
  """Pictures have at most a Gaussian for each four pixels, small ones too.

  So the photograph at 32 x 24 has 192 for each goal that asks for the most, and one set of programs serves all its
  files, those of several modules.
  """
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(search, "FEW", 0)
    yield


@pytest.fixture(autouse=True, scope="module")
def few_programs():
  """Lets go of compiled programs between files, before a process has more than Linux allows."""
  yield
  startup.release_programs()


@pytest.fixture(autouse=True)
def _pillow_without_our_format():
  """Undoes gaussjax.register_pillow: examples of the documents call it, and other tests share their process."""
  yield
  if "GJX" in Image.OPEN:
    Image.ID.remove("GJX")
    del Image.OPEN["GJX"], Image.SAVE["GJX"], Image.EXTENSION[".gjx"], Image.MIME["GJX"]
