"""Files of results: a row of figures a line, as JSON, found again instead of measured again.

A row says what it is of (image, setting ...), its figures, and where those are from: the commit, the
versions, the machine and the date. Rows are only ever appended; of several of the same thing the last one
counts. Rows of before there were commits in them stay as they are and count as of an earlier one.
"""

import datetime
import functools
import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
EARLIER = "an earlier commit"  # of rows that name none

Row = dict[str, Any]


class Source(NamedTuple):
  """How rows are come by, and what has come."""

  fresh: bool  # measure again where the row that is there is of another commit
  commits: Counter[str]  # of the rows taken so far


def source(*, fresh: bool = False) -> Source:
  """A source that nothing is taken from yet."""
  return Source(fresh, Counter())


def find(rows: Iterable[Row], wanted: Row, *, fresh: bool = False) -> Row | None:
  """The last row that has all of `wanted`; with `fresh` None if that is of another commit."""
  row = next((row for row in reversed(list(rows)) if wanted.items() <= row.items()), None)
  return None if row is not None and fresh and row.get("commit") != commit() else row


def kept(path: Path, wanted: Row, measure: Callable[[], Row], rows: Source) -> Row:
  """The row that has all of `wanted`, from the file or measured now and appended to it."""
  row = find(read(path), wanted, fresh=rows.fresh)
  if row is None:
    row = measured(wanted, measure, ())
    append(path, row)
  rows.commits[commit_of(row)] += 1
  return row


def measured(wanted: Row, measure: Callable[..., Row], arguments: tuple) -> Row:
  """The row that is `wanted`, measured now by `measure(*arguments)` in whatever process and on whatever machine."""
  return wanted | measure(*arguments) | origin()


def origin() -> Row:
  """Where a row is from that is measured now."""
  from gaussjax import report

  return {
    "commit": commit(),
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "machine": machine(),
    "environment": report.environment(),
  }


@functools.cache  # as the code was when it was loaded
def commit() -> str:
  """The commit of this code, with a + if what is measured is changed since; "unknown" outside of a repository."""
  root = Path(__file__).parent
  git = lambda *words: subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout
  try:
    # Rows that are appended change no code.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":(exclude){RESULTS}")
    return git("rev-parse", "--short", "HEAD").strip() + ("+" if changed.strip() else "")
  except (OSError, subprocess.CalledProcessError):
    return "unknown"


def machine() -> str:
  """The processor's name, where the system tells it."""
  import platform

  try:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
  except OSError:
    found = None
  return found[1].strip() if found else platform.processor() or platform.machine()


def commit_of(row: Row) -> str:
  """The commit that a row is of, in words."""
  return row.get("commit", EARLIER)


def latest(rows: Iterable[Row], names: Iterable[str]) -> list[Row]:
  """The last row of each thing, which is what the fields `names` say."""
  names = tuple(names)
  return list({json.dumps([row.get(name) for name in names]): row for row in rows}.values())


def commits(counts: Counter[str]) -> str:
  """A line that says which commits rows are of."""
  return "rows of " + ", ".join(f"{name} ({count})" for name, count in counts.most_common())


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


def number(row: Row) -> int:
  """The number at the end of an image's name, 0 without."""
  found = re.search(r"(\d+)$", Path(row["image"]).stem)
  return int(found[1]) if found else 0
