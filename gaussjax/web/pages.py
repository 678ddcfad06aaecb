"""The viewer's page: a `.gjx` file, what draws it and perhaps its original, in one file that needs no server."""

import base64
import html
import re
from importlib import resources
from typing import Any


def viewer(data: bytes, *, title: str, original: str = "") -> str:
  """The page that shows a file's `data`; `original` is the address of a picture to compare it with, as `address`.

  What is wrong with the data the page itself says in words.
  """
  values = {
    "title": html.escape(title),
    "data": base64.b64encode(data).decode(),
    "original": original,
    "style": source("viewer.css"),
    "script": script("gjx.js", "viewer.js"),
  }
  return filled(source("viewer.html"), values)


def address(picture: bytes, kind: str) -> str:
  """A picture's bytes as the address of itself."""
  return f"data:{kind};base64,{base64.b64encode(picture).decode()}"


def source(name: str) -> str:
  """The text of a file of this room."""
  return (resources.files("gaussjax.web") / name).read_text(encoding="utf-8")


def script(*names: str) -> str:
  """Modules of this room as one: within a page none can import another. Each but the first keeps its names."""
  first, *others = (source(name) for name in names)
  text = "\n".join([first, *(f"{{\n{other}}}" for other in others)])
  text = re.sub(r'^import \{[^}]*\} from "\./[a-z]+\.js";\n', "", text, flags=re.MULTILINE)
  text = re.sub(r"^export (?=class|const|function|let)", "", text, flags=re.MULTILINE)
  return text.replace("</", "<\\/")  # only strings and patterns have it, which stay what they are


def filled(template: str, values: dict[str, Any]) -> str:
  """A template with each {{name}} replaced, once: what is put in is not looked at again."""
  return re.sub(r"\{\{(\w+)\}\}", lambda found: str(values[found[1]]), template)
