"""Builds the native renderer where there is a C++ compiler; without one the package is of Python alone.

Its XLA headers come with jaxlib, which pyproject.toml asks for while building.
"""

from importlib import util
from pathlib import Path

import setuptools


def scanlines() -> list[setuptools.Extension]:
  """The extension module, whose failure to build is a warning."""
  jaxlib = util.find_spec("jaxlib")
  if jaxlib is None or jaxlib.origin is None:
    return []
  folder = "gaussjax/rendering/native"
  return [
    setuptools.Extension(
      "gaussjax.rendering._scanlines",
      [f"{folder}/scanlines.cc"],
      include_dirs=[str(Path(jaxlib.origin).parent / "include")],
      depends=[f"{folder}/kernels.inc"],
      define_macros=[("Py_LIMITED_API", "0x030b0000")],
      extra_compile_args=["-O3", "-std=c++17", "-fvisibility=hidden", "-w"],
      language="c++",
      py_limited_api=True,
      optional=True,
    )
  ]


setuptools.setup(ext_modules=scanlines(), options={"bdist_wheel": {"py_limited_api": "cp311"}})
