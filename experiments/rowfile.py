"""Files of results: a row of figures a line, as JSON, found again instead of measured again."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]


def find(rows: Iterable[Row], wanted: Row) -> Row | None:
  """The first row that has all of `wanted`."""
  return next((row for row in rows if wanted.items() <= row.items()), None)


def kept(path: Path, wanted: Row, measure: Callable[[], Row]) -> Row:
  """The row that has all of `wanted`, from the file or measured now and appended to it."""
  row = find(read(path), wanted)
  if row is None:
    row = wanted | measure()
    append(path, row)
  return row


def append(path: Path, row: Row) -> None:
  """One write of one line: whole, or a last line that `read` drops."""
  with path.open("a") as file:
    file.write(json.dumps(row) + "\n")


def read(path: Path) -> list[Row]:
  """The rows of a file, without a last line that was cut off; none if there is no file."""
  if not path.is_file():
    return []
  text = path.read_text()
  whole, _, rest = text.rpartition("\n")
  if rest:
    path.write_text(whole + "\n" if whole else "")
  return [json.loads(line) for line in whole.splitlines()]


def fingerprint(text: str) -> str:
  """Of all that a row's figures depend on: rows by earlier settings of the same name do not count."""
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def number(row: Row) -> int:
  """The number at the end of an image's name, 0 without."""
  found = re.search(r"(\d+)$", Path(row["image"]).stem)
  return int(found[1]) if found else 0
