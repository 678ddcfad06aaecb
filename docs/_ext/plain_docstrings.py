"""Docstrings as they are read in the source, made fit for Sphinx.

They are plain sentences with `shapes` in backticks. Characters that reStructuredText takes for markup are escaped
outside of backticks; a class whose fields are commented in its source gets a table of them.
"""

import ast
import inspect
import re
import textwrap
import tokenize
from io import StringIO

MARKUP = re.compile(r"([|*\\]|(?<=\w)_(?!\w))")


def plain(line: str) -> str:
  """A line of a docstring whose only markup is the backtick, as reStructuredText."""
  parts = line.split("`")
  if len(parts) % 2 == 0:  # the span goes on in the next line: Markdown allows it, this does not
    return MARKUP.sub(r"\\\1", line.replace("`", ""))
  return "".join(f"``{part}``" if index % 2 else MARKUP.sub(r"\\\1", part) for index, part in enumerate(parts))


def fields(cls: type) -> list[tuple[str, str, str]]:
  """(name, type, comment) of each field of a class, the comment as it stands beside or below it in the source."""
  source = textwrap.dedent(inspect.getsource(cls))
  body = next(node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)).body
  comments = {
    token.start[0]: token.string.lstrip("# ")
    for token in tokenize.generate_tokens(StringIO(source).readline)
    if token.type == tokenize.COMMENT
  }
  found = []
  for node in body:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
      text, line = [comments.get(node.end_lineno, "")], node.end_lineno + 1
      lines = source.splitlines()
      while line in comments and lines[line - 1].lstrip().startswith("#"):
        text.append(comments[line])
        line += 1
      default = "" if node.value is None else f" = {ast.unparse(node.value)}"
      found.append((node.target.id, ast.unparse(node.annotation) + default, " ".join(filter(None, text))))
  return found


def process(app, what, name, obj, options, lines) -> None:
  """Sphinx's hook for each docstring; `lines` is changed in place."""
  del app, name, options
  lines[:] = [line if line.startswith("    ") else plain(line) for line in lines]
  lines[:] = [line + ":" if _begins_code(lines, index) else line for index, line in enumerate(lines)]
  if what == "class" and inspect.isclass(obj):
    for field, kind, comment in fields(obj):
      words = f": {plain(comment)}" if comment else ""
      lines += ["", f"* **{field}** (``{kind}``){words}"]
    lines.append("")


def sign(app, what, name, obj, options, signature, returned) -> tuple[str, str] | None:
  """Sphinx's hook for each signature: the words of the source (`ArrayLike`), not the unions that they stand for.

  A class has none, since its fields follow.
  """
  del app, name, options, signature, returned
  if what == "class":
    return "", ""
  if what != "function":
    return None
  source = textwrap.dedent(inspect.getsource(inspect.unwrap(getattr(obj, "func", obj))))
  node = next(node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
  return f"({ast.unparse(node.args)})", ast.unparse(node.returns) if node.returns else ""


def _begins_code(lines: list[str], index: int) -> bool:
  """Whether a line ends a sentence with a colon before an indented example."""
  after = lines[index + 1 : index + 3]
  return lines[index].endswith(":") and len(after) == 2 and not after[0] and after[1].startswith("    ")


def setup(app) -> dict:
  """Called by Sphinx."""
  app.connect("autodoc-process-docstring", process)
  app.connect("autodoc-process-signature", sign)
  return {"parallel_read_safe": True}
