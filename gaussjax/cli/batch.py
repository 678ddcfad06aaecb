"""`gaussjax batch`: many pictures, here or by an engine."""

import argparse
import contextlib
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gaussjax import errors
from gaussjax.cli.encode import SUFFIX, encode_one
from gaussjax.cli.streams import check_flags, check_output, progress_bars, start_jax, tell_user, write_output

FAILURES = "failures.json"  # of a batch, in its folder
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")


class _Job(NamedTuple):
  """A picture of a batch."""

  source: str
  target: str
  trouble: str = ""  # why it cannot be encoded, known before


def run_batch(arguments: argparse.Namespace) -> None:
  jobs = _jobs(arguments.inputs, arguments.out_dir)
  if not jobs:
    raise ValueError(f"got {' '.join(arguments.inputs)}, expected pictures or folders of them")
  by_engine = arguments.engine is not None or arguments.workers is not None
  if any(_is_due(job, arguments) for job in jobs):
    _make_folder(arguments.out_dir)
    check_flags() if by_engine else start_jax()
  results = dict[int, dict[str, Any]]()
  try:
    with contextlib.closing((_by_engine if by_engine else _in_turn)(jobs, arguments)) as ended:
      for index, result in ended:
        results[index] = result
        if "error" in result:
          tell_user(f"{jobs[index].source}: {result['error']}")
        elif not arguments.json:
          _say_result(result)
  finally:  # what is done counts, also after an interruption
    in_order = [results[index] for index in sorted(results)]
    failed = [result for result in in_order if "error" in result]
    if arguments.json:
      print(json.dumps({"results": in_order, "pictures": len(jobs), "failed": len(failed)}))
    _list_failures(arguments.out_dir, failed, whole=len(results) == len(jobs))
  if failed:
    raise ValueError(f"{len(failed)} of {len(jobs)} pictures could not be encoded")


_Ends = Generator[tuple[int, dict[str, Any]], None, None]  # (index of a job, what came of it)


def _in_turn(jobs: list[_Job], arguments: argparse.Namespace) -> _Ends:
  """One after another in this process."""
  busy, done = 0.0, 0
  for index, job in enumerate(jobs):
    if len(jobs) > 1:
      left = f", ETA {busy / done * (len(jobs) - index):.0f} s" if done else ""
      print(f"{index + 1}/{len(jobs)} {job.source}{left}", file=sys.stderr, flush=True)
    result = _result(job, arguments)
    if result is None:
      try:
        result = _named_files(job, _encode_job(job, arguments, tell_user, progress_bars()))
      except Exception as error:  # whatever one picture brings, the others go on
        result = _named_files(job, {"error": _without_name(job, errors.one_line(error))})
    busy, done = busy + result.get("seconds", 0.0), done + ("seconds" in result)
    yield index, result


def _by_engine(jobs: list[_Job], arguments: argparse.Namespace) -> _Ends:
  """As they end in other processes, those first of which it is known before."""
  from gaussjax import engines, files

  known = {index: result for index, job in enumerate(jobs) if (result := _result(job, arguments)) is not None}
  yield from known.items()
  due = [index for index in range(len(jobs)) if index not in known]
  options = {name: value for name, value in vars(arguments).items() if name not in ("run", "inputs")}
  absolute = lambda path: path if files.is_url(path) else os.path.abspath(path)  # another process, another folder
  tasks = [(absolute(jobs[index].source), absolute(jobs[index].target), options) for index in due]
  report, engine = progress_bars(), arguments.engine or "local"
  report("batch", 0, len(due))
  ends = engines.run(encode_task, tasks, engine=engine, workers=arguments.workers, folder=arguments.out_dir)
  with contextlib.closing(ends):
    for done, outcome in enumerate(ends, 1):
      job, record = jobs[due[outcome.number]], outcome.record or {"error": outcome.error}
      for note in record.pop("notes", []):
        tell_user(note.replace(tasks[outcome.number][0], job.source))
      if "error" in record:
        record["error"] = _without_name(job, record["error"].replace(tasks[outcome.number][0], job.source))
      report("batch", done, len(due))
      yield due[outcome.number], _named_files(job, record)


def encode_task(source: str, target: str, options: dict[str, Any]) -> dict[str, Any]:
  """What `batch` has other processes do: writes the file of a picture, whole, and returns its figures.

  A mistake in the picture is an `error` in them. What another attempt may mend is raised.
  """
  notes, arguments = list[str](), argparse.Namespace(**options)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    if os.path.isfile(target) and not arguments.force:  # an attempt that wrote it and died
      return {"skipped": "there already"}
    try:
      start_jax()
      return {**_encode_job(_Job(source, target), arguments, notes.append, lambda *_: None), "notes": notes}
    except (ValueError, errors.FitError) as error:
      if isinstance(error.__cause__, OSError):
        raise
      return {"error": errors.one_line(error), "notes": notes}


def _result(job: _Job, arguments: argparse.Namespace) -> dict[str, Any] | None:
  """What is known of a job before any work; None if it is to be done."""
  if job.trouble:
    return _named_files(job, {"error": job.trouble})
  return None if _is_due(job, arguments) else _named_files(job, {"skipped": "there already"})


def _named_files(job: _Job, result: dict[str, Any]) -> dict[str, Any]:
  return {"input": job.source, "file": job.target} | result


def _without_name(job: _Job, words: str) -> str:
  return words.removeprefix(f"{job.source}: ")


def _encode_job(job: _Job, arguments: argparse.Namespace, tell: Callable, progress: Callable) -> dict[str, Any]:
  """Writes a picture's file: its figures."""
  import gaussjax
  from gaussjax import startup

  Path(job.target).parent.mkdir(parents=True, exist_ok=True)
  check_output(job.target, arguments, (SUFFIX,), job.source)
  startup.release_programs()
  data, figures = encode_one(gaussjax, job.source, arguments, tell, progress)
  write_output(job.target, data)
  return figures


def _list_failures(folder: str, failed: list[dict[str, Any]], *, whole: bool) -> None:
  """Writes which pictures failed in the last run; the file goes when a `whole` one has no failures."""
  from gaussjax import files

  path = Path(folder) / FAILURES
  if failed and path.parent.is_dir():
    files.write_whole(path, (json.dumps(failed, indent=1) + "\n").encode())
  elif whole and not failed:
    path.unlink(missing_ok=True)


def _say_result(result: dict[str, Any]) -> None:
  if "skipped" in result:
    print(f"{result['file']}: {result['skipped']}", flush=True)
  elif "error" not in result:
    shown = "{bytes} bytes, {bpp:.4f} bpp, {psnr:.2f} dB, {seconds:.0f} s".format(**result)
    print(f"{result['file']}: {shown}", flush=True)


def _is_due(job: _Job, arguments: argparse.Namespace) -> bool:
  return not job.trouble and (arguments.force or not os.path.isfile(job.target))


def _make_folder(folder: str) -> None:
  """Makes it, and sees that files can be written there. Raises ValueError."""
  from gaussjax import files

  if files.is_url(folder):
    raise ValueError(f"got --out_dir {folder}, expected a folder of this machine")
  try:
    Path(folder).mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(f"got --out_dir {folder}, which cannot be made ({error.strerror})") from error
  files.check_writable(Path(folder) / f"x{SUFFIX}")


def _jobs(inputs: list[str], out_dir: str) -> list[_Job]:
  """The pictures with their files, each once, by input and name; and what of the inputs gives none."""
  places, broken = dict[str, tuple[str, Path]](), list[_Job]()

  def add(path: str, place: Path) -> None:
    folder, name = os.path.split(path)
    places.setdefault(os.path.join(os.path.realpath(folder), name), (path, place))

  for name in inputs:
    if name in ("", "-"):
      broken.append(_Job(name, "", "expected a picture with a name, of which its file's is made"))
    elif not os.path.isdir(name):
      add(name, Path(Path(name).name))
    else:
      found = list(_walk(name))
      for path, trouble in found:
        if trouble:
          broken.append(_Job(path, "", trouble))
        else:
          add(path, Path(path).relative_to(name))
      if not found:
        broken.append(_Job(name, "", "a folder without pictures"))
  stems = Counter(place.with_suffix("") for _, place in places.values())
  named = {
    source: os.path.join(out_dir, place.with_suffix("") if stems[place.with_suffix("")] == 1 else place) + SUFFIX
    for source, place in places.values()
  }
  users = Counter(named.values())
  twin = "another picture has the same name; give it another --out_dir in a run of its own"
  return [_Job(source, target, twin if users[target] > 1 else "") for source, target in named.items()] + broken


def _walk(folder: str) -> Iterator[tuple[str, str]]:
  """(path, "") of the pictures in a folder and below, hidden ones apart; (path, why) of folders not to be read."""
  unread = list[OSError]()
  for parent, folders, names in os.walk(folder, onerror=unread.append):
    folders[:] = sorted(name for name in folders if not name.startswith("."))
    for name in sorted(names):
      if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
        yield os.path.join(parent, name), ""
  for error in unread:
    yield str(error.filename), str(error.strerror)
