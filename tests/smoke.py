"""The command from a picture to a file and back, once, in processes of its own: `python tests/smoke.py`."""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PHOTOGRAPH = Path(__file__).parent.parent / "experiments" / "data" / "kodim23.png"


def main():
  """Fails with what the command said."""
  with tempfile.TemporaryDirectory() as folder:
    Image.open(PHOTOGRAPH).resize((48, 32)).save(Path(folder, "in.png"))
    for arguments in (
      ("--version",),
      ("encode", "in.png", "a.gjx", "--size=900", "-e0"),
      ("info", "a.gjx"),
      ("decode", "a.gjx", "out.png"),
      ("compare", "in.png", "a.gjx"),
      ("view", "a.gjx", "--html", "page.html"),
      ("batch", "in.png", "--out_dir", "files", "--size=900", "-e0", "--workers=1"),
      ("completion", "bash"),
    ):
      subprocess.run([sys.executable, "-m", "gaussjax.cli", *arguments], cwd=folder, check=True)
    assert Path(folder, "a.gjx").read_bytes() == Path(folder, "files", "in.gjx").read_bytes()
    assert Image.open(Path(folder, "out.png")).size == (48, 32)


if __name__ == "__main__":
  main()
