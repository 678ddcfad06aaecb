"""Builds the native renderer and the native coder where there is a C++ compiler; without one the package is of
Python alone.

The renderer's XLA headers come with jaxlib, which pyproject.toml asks for while building.
"""

from importlib import util
from pathlib import Path

import setuptools


def extension(name: str, source: str, **more: list[str]) -> setuptools.Extension:
  """An extension module, whose failure to build is a warning."""
  return setuptools.Extension(
    name,
    [source],
    define_macros=[("Py_LIMITED_API", "0x030b0000")],
    extra_compile_args=["-O3", "-std=c++17", "-fvisibility=hidden", "-w"],
    language="c++",
    py_limited_api=True,
    optional=True,
    **more,
  )


def extensions() -> list[setuptools.Extension]:
  """The coder, and the renderer where jaxlib is."""
  folder = "gaussjax/gjx/native"
  more = {"depends": [f"{folder}/buffers.inc"]}
  found = [extension(f"gaussjax.gjx._{name}", f"{folder}/{name}.cc", **more) for name in ("loops", "descent")]
  jaxlib = util.find_spec("jaxlib")
  if jaxlib is not None and jaxlib.origin is not None:
    folder, headers = "gaussjax/rendering/native", Path(jaxlib.origin).parent / "include"
    more = {"include_dirs": [str(headers)], "depends": [f"{folder}/kernels.inc"]}
    found.append(extension("gaussjax.rendering._scanlines", f"{folder}/scanlines.cc", **more))
  return found


setuptools.setup(ext_modules=extensions(), options={"bdist_wheel": {"py_limited_api": "cp311"}})
