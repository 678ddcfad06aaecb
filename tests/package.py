"""The package as a stranger gets it: built, checked, installed where nothing of the checkout is, and used.

    make package        or: python tests/package.py OUT, where build and twine are installed

The wheel is made from the source distribution. In an environment of its own README's examples run word for word on
a small photograph, mypy finds the types, the command runs; then the same package without a compiler draws the same.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
TYPED = """\
import numpy as np

import gaussjax

result: gaussjax.FitResult = gaussjax.fit(np.zeros((8, 8, 3), np.float32), num_gaussians=4, preset="fast")
data: bytes = gaussjax.encode(result.gaussians, bpp=0.2)
gaussjax.fit(np.zeros((8, 8, 3)), num_gaussians="4")  # the one mistake
"""
PHOTOGRAPH = """\
import sys
from PIL import Image
Image.open(sys.argv[1]).resize((192, 128)).save("photo.png")
"""
DRAWN = """\
import sys
import numpy as np
import gaussjax
from gaussjax.rendering import scanlines
from importlib.util import find_spec
assert gaussjax.__file__.startswith(sys.prefix), gaussjax.__file__
for name in ("gaussjax.rendering._scanlines", "gaussjax.gjx._loops", "gaussjax.gjx._descent"):
  assert (find_spec(name) is not None) == (sys.argv[1] == "native"), "the other kind"
picture = np.asarray(gaussjax.render(gaussjax.load("photo.npz")))
if sys.argv[1] == "native":
  np.save("picture.npy", picture)
else:
  assert np.abs(np.load("picture.npy") - picture).max() < 1e-4
"""


def run(*command, cwd, **environment):
  """A command that must succeed, without anything of the checkout on Python's path."""
  print("+", " ".join(map(str, command))[:200].replace("\n", " "), flush=True)
  there = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
  subprocess.run([*map(str, command)], cwd=cwd, env=there, check=True)


def one(folder, pattern):
  """The one file in a folder that is named so."""
  (found,) = folder.glob(pattern)
  return found


def build(out):
  """(wheel, source distribution), the former made from the latter."""
  shutil.rmtree(out / "dist", ignore_errors=True)
  run(sys.executable, "-m", "build", "--outdir", out / "dist", ROOT, cwd=out)
  run(sys.executable, "-m", "twine", "check", "--strict", *(out / "dist").iterdir(), cwd=out)
  return one(out / "dist", "*.whl"), one(out / "dist", "*.tar.gz")


def use(out, python):
  """README's examples, the types and the command, in a folder of nothing else."""
  folder = out / "use"
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir()
  run(python, "-c", PHOTOGRAPH, ROOT / "experiments" / "data" / "kodim23.png", cwd=folder)
  examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
  assert len(examples) == 3
  (folder / "examples.py").write_text("".join(examples), encoding="utf-8")
  run(python, "examples.py", cwd=folder)
  run(python, "-c", DRAWN, "native", cwd=folder)
  (folder / "typed.py").write_text(TYPED)
  command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "typed.py"]
  done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True)
  assert done.stdout.count("error:") == 1 and 'typed.py:7: error: Argument "num_gaussians"' in done.stdout, (
    done.stdout
  )
  gaussjax = python.parent / "gaussjax"
  run(gaussjax, "encode", "photo.png", "photo.gjx", "--bpp=0.5", "-e0", cwd=folder)
  run(gaussjax, "decode", "photo.gjx", "decoded.png", cwd=folder)
  run(gaussjax, "doctor", cwd=folder)


def use_without_compiler(out, python, source):
  """A wheel of Python alone, from the source distribution: it draws the same."""
  pure = out / "pure"
  shutil.rmtree(pure, ignore_errors=True)
  run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", pure, source, cwd=out, CC="false", CXX="false")
  run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", one(pure, "*.whl"), cwd=out)
  run(python, "-c", DRAWN, "pure", cwd=out / "use")


def main():
  """All of it, in the folder given."""
  out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/package").absolute()
  out.mkdir(parents=True, exist_ok=True)
  wheel, source = build(out)
  venv.create(out / "venv", clear=True, with_pip=True)
  python = out / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
  run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=out)
  use(out, python)
  use_without_compiler(out, python, source)
  print(f"{wheel.name} and {source.name} are good, in {out / 'dist'}")


if __name__ == "__main__":
  main()
