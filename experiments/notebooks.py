"""Runs notebooks and keeps in them what they print and draw. Needs no Jupyter; a notebook is JSON.

  python -m experiments.notebooks --notebooks=docs/notebooks

A cell's last expression is shown as Jupyter would: a Pillow picture (as JPEG), a matplotlib figure, or its text.
"""

import ast
import base64
import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

from absl import flags

from experiments import runner

FLAGS = flags.FLAGS


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_string("notebooks", None, "A notebook, or a folder of them.", required=True)


def main() -> int:
  """Runs them, each with names of its own, in its folder."""
  from gaussjax import files

  given = Path(FLAGS.notebooks)
  for path in [given] if given.is_file() else sorted(given.glob("*.ipynb")):
    notebook = json.loads(path.read_text())
    with contextlib.chdir(path.parent):
      run(notebook)
    files.write_whole(path, (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode())
    print(path)
  return 0


def run(notebook: dict[str, Any], change: Any = lambda source: source) -> dict[str, Any]:
  """Runs the code cells of a notebook, their sources changed by `change`, and puts outputs in; what they define."""
  os.environ["MPLBACKEND"] = "agg"  # figures need no display
  names: dict[str, Any] = {"__name__": "notebook"}
  cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
  for count, cell in enumerate(cells, 1):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      value = execute(change("".join(cell["source"])), names)
    cell["execution_count"] = count
    cell["outputs"] = outputs(printed.getvalue(), value, count)
  return names


def execute(source: str, names: dict[str, Any]) -> Any:
  """Runs a cell; the value of its last line if that is an expression."""
  tree = ast.parse(source)
  last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
  exec(compile(tree, "cell", "exec"), names)  # notebooks are ours
  return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


def outputs(printed: str, value: Any, count: int) -> list[dict[str, Any]]:
  """A cell's outputs in the notebook's format."""
  found: list[dict[str, Any]] = []
  if printed:
    found.append({"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)})
  if value is not None:
    found.append({"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": shown(value)})
  return found


def shown(value: Any) -> dict[str, str]:
  """A value by kinds: a picture, or its text."""
  if not (hasattr(value, "savefig") or hasattr(value, "convert")):
    return {"text/plain": repr(value)}
  file = io.BytesIO()
  if hasattr(value, "savefig"):
    value.savefig(file, format="png", dpi=80)
    kind = "image/png"
  else:
    value.convert("RGB").save(file, "JPEG", quality=88)
    kind = "image/jpeg"
  return {"text/plain": f"<{type(value).__name__}>", kind: base64.b64encode(file.getvalue()).decode()}


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
