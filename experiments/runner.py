"""What the runners share: flags, errors in one line, progress, and results written whole."""

import contextlib
import difflib
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from experiments import rowfile
from gaussjax import engines, errors

PHOTOGRAPH = Path(__file__).parent / "data" / "kodim23.png"

EFFORT = 5  # of an encoding unless it is said: encoding.DEFAULT_EFFORT, which importing JAX would tell
USAGE_ERROR = 2
INTERRUPTED = 130


class Criterion(NamedTuple):
  """A row of an acceptance table."""

  name: str
  measured: str
  required: str
  met: bool


def at_least(name: str, measured: float, required: float) -> Criterion:
  """A criterion that more is better for."""
  return Criterion(name, f"{measured:.4g}", f">= {required:g}", measured >= required)


def at_most(name: str, measured: float, required: float) -> Criterion:
  """A criterion that less is better for."""
  return Criterion(name, f"{measured:.4g}", f"<= {required:g}", measured <= required)


class NotMeasuredError(Exception):
  """A stage needs what this machine lacks."""


class InterruptedFitError(Exception):
  """A signal ended a fit early; the message says how to go on."""


def run(main: Callable[[], int | None], description: str) -> None:
  """Parses the flags and runs `main`, which returns an exit status.

  `--help` prints `description` and the flags and exits 0, before JAX is imported. A usage error, and any ValueError
  or OSError of `main`, is one line on stderr and exit status 2; a FitError exits 1, an interruption 130, by
  SIGTERM too: what was started ends with it.
  """
  from gaussjax import startup

  argv = sys.argv
  if any(argument in ("--help", "-help", "-h", "--helpfull") for argument in argv[1:]):
    print(f"{description.strip()}\n\nFlags:\n{_flag_help()}")
    sys.exit(0)
  try:
    rest = flags.FLAGS(argv)
    if len(rest) > 1:
      raise flags.Error(f"got the argument {rest[1]!r}, expected flags only")
  except flags.UnrecognizedFlagError as error:
    near = difflib.get_close_matches(error.flagname, own_flags(), n=1, cutoff=0.5)
    _fail(f"unknown flag --{error.flagname}" + (f"; did you mean --{near[0]}?" if near else "; --help lists all"))
  except flags.Error as error:
    _fail(str(error))
  try:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # by itself it would leave other processes behind
    startup.prepare_jax()
    sys.exit(main())
  except KeyboardInterrupt:
    _fail("interrupted", INTERRUPTED)
  except InterruptedFitError as message:
    _fail(str(message), INTERRUPTED)
  except (ValueError, OSError) as error:
    _fail(str(error))
  except ModuleNotFoundError as error:  # an extra that is not installed
    _fail(f"{error}; see the extras in pyproject.toml")
  except errors.FitError as error:
    _fail(str(error), 1)


class Compilations:
  """Counts what XLA compiles from here on, and the seconds that takes."""

  def __init__(self) -> None:
    import jax.monitoring

    self.count, self.seconds = 0, 0.0
    jax.monitoring.register_event_duration_secs_listener(self._listen)

  def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
    if event.endswith("backend_compile_duration"):
      self.count, self.seconds = self.count + 1, self.seconds + duration_secs


def peak_memory() -> int:
  """The most bytes of memory that this process has had; 0 where the system does not tell."""
  try:
    import resource  # which Windows lacks
  except ImportError:
    return 0
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory() -> int:
  """The bytes of memory that this process has in use; 0 where there is no /proc."""
  statm = Path("/proc/self/statm")
  return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def own_flags() -> dict[str, flags.Flag]:
  """The flags that runners define, not absl's own."""
  own = flags.FLAGS.flags_by_module_dict()
  return {flag.name: flag for module, defined in own.items() if not module.startswith("absl") for flag in defined}


def _flag_help() -> str:
  """A line for each flag, with its default."""
  lines = []
  for name, flag in sorted(own_flags().items()):
    default = "" if flag.default is None else f" [{flag.default}]"
    choices = f" <{'|'.join(flag.parser.enum_values)}>" if isinstance(flag.parser, flags.EnumParser) else ""
    lines.append(f"  --{name}{choices}{default}\n      {flag.help}")
  return "\n".join(lines)


def _fail(message: str, status: int = USAGE_ERROR) -> None:
  print(f"error: {' '.join(message.split())}", file=sys.stderr)
  sys.exit(status)


def image_files(path: str | os.PathLike) -> list[Path]:
  """The image itself, or the images in a folder by name. Raises ValueError if there is none."""
  path = Path(path)
  if path.is_file():
    return [path]
  found = sorted(file for file in path.glob("*") if file.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
  if not found:
    raise ValueError(f"got --images={path}, expected an image file or a folder of PNG, JPEG or WebP files")
  return found


def define_effort_flag() -> None:
  """The flag --effort, of an encoding."""
  flags.DEFINE_integer("effort", EFFORT, "Effort of our encoder, 0 to 9.", lower_bound=0, upper_bound=9)


def define_engine_flags() -> None:
  """The flags of `measure_by_workers`."""
  flags.DEFINE_integer(
    "workers", None, "Rows at a time, each by a process with its share of the cores.", lower_bound=1
  )
  flags.DEFINE_enum(
    "engine", None, engines.NAMES, "Who runs the workers: this machine, the Ray cluster at RAY_ADDRESS, or Slurm."
  )


def measure_by_workers(
  path: Path, measure: Callable[..., rowfile.Row], tasks: Iterable[tuple[rowfile.Row, tuple]], *, fresh: bool
) -> None:
  """If --workers or --engine is given: a row for each task (what it is of, arguments of `measure`) that has none.

  They are appended as they come, with the seconds that a worker's cores took. What fails is in NAME-failures.json,
  and then it raises ValueError: the same command tries that again.
  """
  workers, engine = flags.FLAGS.workers, flags.FLAGS.engine
  if workers is None and engine is None:
    return
  there = rowfile.read(path)
  tasks = [task for task in tasks if rowfile.find(there, task[0], fresh=fresh) is None]
  calls = [(wanted, engines.importable(measure), arguments) for wanted, arguments in tasks]
  ends = engines.run(rowfile.measured, calls, engine=engine or "local", workers=workers, folder=path.parent)
  began, failed = time.monotonic(), list[rowfile.Row]()
  with contextlib.closing(ends):
    for done, outcome in enumerate(ends, 1):
      wanted = tasks[outcome.number][0]
      if outcome.error is None:
        rowfile.append(path, outcome.record)
      else:
        failed.append(wanted | {"error": outcome.error})
      eta = (time.monotonic() - began) / done * (len(tasks) - done)
      said = " ".join(str(value) for value in wanted.values()) + (f": {outcome.error}" if outcome.error else "")
      print(f"{done}/{len(tasks)} {said}  ETA {eta:.0f} s", flush=True)
  failures = path.with_name(f"{path.stem}-failures.json")
  failures.unlink(missing_ok=True)
  if failed:
    from gaussjax import files  # which imports numpy: --help does not

    files.write_whole(failures, (json.dumps(failed, indent=1) + "\n").encode())
    raise ValueError(
      f"{len(failed)} of {len(tasks)} rows failed, see {failures}; the same command tries them again"
    )


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
  """Within the block the first SIGINT or SIGTERM makes the yielded function true; a second one interrupts."""
  seen = False

  def note(number: int, frame: Any) -> None:
    nonlocal seen
    if seen:
      raise KeyboardInterrupt
    seen = True
    print("stopping after this chunk of steps; once more to stop at once", file=sys.stderr, flush=True)

  before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
  try:
    yield lambda: seen
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def checkpoint(out_dir: str | os.PathLike, *, resume: bool, every_steps: int) -> Any:
  """The gaussjax.Checkpoint of a run. Raises ValueError unless there is one to go on from exactly if `resume`."""
  import gaussjax
  from gaussjax.fitting import checkpoints

  folder = Path(out_dir) / "checkpoint"
  found = bool(checkpoints.kept(folder))
  if found and not resume:
    raise ValueError(f"{folder} holds a fit that is not finished; go on with --resume, or take another --out_dir")
  if resume and not found:
    raise ValueError(f"got --resume, but {folder} holds no checkpoint; leave it out to begin")
  return gaussjax.Checkpoint(folder, every_steps=every_steps)


@contextlib.contextmanager
def results(out_dir: str | os.PathLike) -> Iterator[Path]:
  """A temporary folder beside `out_dir` whose files move into it when the block ends well, and vanish otherwise."""
  out_dir = Path(out_dir)
  if out_dir.exists() and not out_dir.is_dir():
    raise ValueError(f"got --out_dir={out_dir}, which is a file; expected a folder")
  out_dir.mkdir(parents=True, exist_ok=True)
  temporary = Path(tempfile.mkdtemp(dir=out_dir, prefix=".partial-"))
  try:
    yield temporary
    for file in sorted(temporary.iterdir()):
      file.replace(out_dir / file.name)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
  """Indented, keys in the order given; NaN as null, so that any parser reads it."""
  path.write_text(json.dumps(_without_nan(value), indent=1) + "\n")


def _without_nan(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _without_nan(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_without_nan(item) for item in value]
  return None if isinstance(value, float) and math.isnan(value) else value


def progress(total: int, *, every_seconds: float = 5.0) -> Callable[[dict[str, float]], None]:
  """A `progress_fn`: a bar with ETA on a terminal, otherwise a line every few seconds and at the end."""
  if sys.stderr.isatty():
    from tqdm import tqdm

    bar = tqdm(total=total, unit="step", dynamic_ncols=True)

    def draw(record: dict[str, float]) -> None:
      bar.n = int(record["step"])
      bar.set_postfix_str(_figures(record))
      if bar.n >= total:
        bar.close()

    return draw
  last = -every_seconds

  def write(record: dict[str, float]) -> None:
    nonlocal last
    now = time.monotonic()
    if now - last >= every_seconds or record["step"] >= total:
      last = now
      timing = f"{record['steps_per_second']:.1f} steps/s  ETA {record['eta_seconds']:.0f} s"
      print(f"step {record['step']:>5.0f}/{total}  {_figures(record)}  {timing}", file=sys.stderr, flush=True)

  return write


def _figures(record: dict[str, float]) -> str:
  return (
    f"loss {record['loss']:.5f}  PSNR {record['psnr']:.2f} dB  min scale {record['min_scale_px']:.2f} px"
    f" ({record['min_scale']:.4f})  W_median {record['w_median']:.2f}  covered {record['covered']:.0%}"
    + (f"  rolled back {record['rollbacks']:.0f}x" if record["rollbacks"] else "")
  )
