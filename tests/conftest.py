"""Settings of all tests. Each test file is a module's, or a promise's."""

import hypothesis
import jax
import pytest

from gaussjax import startup

# Compilation makes the first example slow, and machines differ: no test depends on timing.
hypothesis.settings.register_profile("quiet", deadline=None, max_examples=20, derandomize=True)
hypothesis.settings.load_profile("quiet")


@pytest.fixture
def x64():
  """Double precision for the length of a test."""
  with jax.enable_x64(True):
    yield


@pytest.fixture(autouse=True, scope="module")
def few_programs():
  """Lets go of compiled programs between files, before a process has more than Linux allows."""
  yield
  startup.release_programs()


@pytest.fixture(autouse=True, scope="session")
def programs_of_children(tmp_path_factory):
  """The processes that tests start share compiled programs, and leave the user's own alone."""
  with pytest.MonkeyPatch.context() as environment:
    environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
