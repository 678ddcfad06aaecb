"""Everything at once for hours: is anything lost, half written, or forgotten to be let go of?

  python -m experiments.soak --minutes=120 --kills=100

Fits, encodings and batches are killed by SIGKILL at random moments, again and again, and go on; their end must be
to the byte that of an undisturbed run, and what lies around between must be whole. Files are written to disks that
are full and to folders that are read-only; two processes share a new cache of compiled programs, and one is killed;
damaged files are read, thousands an hour, by a process that lives on, whose memory must not grow.

A row for each operation is appended to OUT_DIR/soak.jsonl; the same command goes on from there. At the end a table,
and status 1 if anything was wrong, or if fewer were killed than asked.
"""

import contextlib
import json
import os
import random
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import flags

from experiments import rowfile, runner

FLAGS = flags.FLAGS
KILLED = ("fit", "encode", "batch")
PICTURES = 8  # of a batch
MOST_SECONDS = 600  # that any process may take
ORPHAN_SECONDS = 60  # in which workers without a parent have to end
GROWTH = 64 * 2**20  # bytes by which a process that lives on may grow between the first and the last third
WARM_ROUNDS = 3  # of it, which do not count


def define_flags() -> None:
  """The flags of this runner."""
  flags.DEFINE_float("minutes", 120, "How long, all runs together.", lower_bound=0)
  flags.DEFINE_integer("kills", 100, "Kills each of fits, encodings and batches that are asked for.", lower_bound=0)
  flags.DEFINE_string("out_dir", "out/soak", "Where everything goes.")
  flags.DEFINE_integer("seed", 0, "Of the moments.")


class WrongError(Exception):
  """Something was lost, or half written, or not as it was before."""


class Soak:
  """A folder for the work, the undisturbed results, and the process that lives on."""

  def __init__(self, folder: Path, rng: random.Random) -> None:
    self.folder, self.rng = folder.absolute(), rng
    self.reference = self.folder / "reference"
    self.kills = 0  # of the operation that runs
    self.steady: subprocess.Popen | None = None
    root = str(Path(__file__).parent.parent)
    self.environment = os.environ | {
      "XDG_CACHE_HOME": str(self.folder / "cache"),
      "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }

  def start(self, *arguments: str, module: str = "experiments.soak_children", **options: Any) -> subprocess.Popen:
    """A process in a group of its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    given: dict[str, Any] = {"env": self.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, start_new_session=True, **(given | options))

  def finish(self, process: subprocess.Popen) -> tuple[int, str, str]:
    """(status, what it printed, what it complained of) of a process that is waited for."""
    try:
      out, error = process.communicate(timeout=MOST_SECONDS)
    except BaseException:
      end_group(process)
      raise
    return process.returncode, out, error

  def run(self, *arguments: str, module: str = "experiments.soak_children", status: int = 0, **options: Any) -> str:
    """Runs a process to its end, which must be of this status: what it complained of."""
    found, _, error = self.finish(self.start(*arguments, module=module, **options))
    if found != status:
      raise WrongError(f"{' '.join(map(str, arguments))}: status {found}, expected {status}: {error[-500:]}")
    return error

  def command(self, *arguments: str, status: int = 0, **options: Any) -> str:
    """The command `gaussjax` to its end."""
    return self.run(*arguments, module="gaussjax.cli", status=status, **options)

  def begun(self, name: str) -> Path:
    """An empty folder for an operation."""
    folder = self.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def line_of(process: subprocess.Popen) -> str:
  """The next line that a process prints, empty at its end. Raises WrongError for one that says nothing any more."""
  assert process.stdout is not None
  if not select.select([process.stdout], [], [], MOST_SECONDS)[0]:
    end_group(process)
    raise WrongError(f"a process says nothing for {MOST_SECONDS} s")
  return process.stdout.readline()


def end_group(process: subprocess.Popen) -> None:
  """Kills a process of ours with all that it started."""
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  for stream in (process.stdin, process.stdout, process.stderr):
    if stream is not None:
      stream.close()


def prepare(soak: Soak) -> None:
  """The undisturbed results, once."""
  if (soak.reference / "done").exists():
    if (there := (soak.reference / "done").read_text()) != rowfile.commit():
      raise ValueError(f"{soak.folder} is of commit {there}, expected {rowfile.commit()}; take another --out_dir")
    return
  shutil.rmtree(soak.reference, ignore_errors=True)
  for name in ("fit", "encode", "in", "batch"):
    (soak.reference / name).mkdir(parents=True)
  print("undisturbed runs first, which compile everything", flush=True)
  soak.run("pictures", str(soak.reference / "in"), str(PICTURES))
  for name in ("fit", "encode"):
    soak.run(name, str(soak.reference / name))
  soak.command(*batch_of(soak, soak.reference / "batch"))
  soak.command("decode", reference_file(soak), str(soak.reference / "picture.png"))
  (soak.reference / "done").write_text(rowfile.commit())


def batch_of(soak: Soak, folder: Path) -> tuple[str, ...]:
  """The arguments of a batch of all pictures into a folder."""
  return ("batch", str(soak.reference / "in"), "--out_dir", str(folder), "--size=700", "-e0", "--workers=2")


def reference_file(soak: Soak) -> str:
  """An undisturbed file."""
  return str(soak.reference / "batch" / "0.gjx")


def check_whole(folder: Path) -> None:
  """Raises WrongError for a file in a folder or below that is not whole, names of files being written apart."""
  from PIL import Image

  from gaussjax import errors, files
  from gaussjax.gjx import container

  for path in sorted(folder.rglob("*")):
    if path.is_dir() or path.name.startswith(files.TEMPORARY):
      continue
    try:
      data = path.read_bytes()
      if path.suffix == ".gjx":
        container.read(data)
      elif path.suffix == ".npz":
        files.read_npz(data)
      elif path.suffix == ".png":
        with Image.open(path) as image:
          image.load()
      elif path.suffix == ".json":
        json.loads(data)
    except (errors.FormatError, OSError, ValueError) as error:
      raise WrongError(f"{path} is half written: {error}") from error


def check_same(found: Path, expected: Path) -> None:
  """Raises WrongError for a file that is not there, or not to the byte as it was without any disturbance."""
  if not found.exists():
    raise WrongError(f"{found} is lost")
  if found.read_bytes() != expected.read_bytes():
    raise WrongError(f"{found} differs from that of an undisturbed run")


def left_over(folder: Path) -> int:
  """Names of files that were being written when their process was killed."""
  from gaussjax import files

  return sum(1 for _ in folder.rglob(f"{files.TEMPORARY}*"))


def kill_again_and_again(soak: Soak, name: str, result: str) -> dict[str, Any]:
  """A fit or an encoding that is killed some times, and then left to end."""
  folder = soak.begun(name)
  for _ in range(soak.rng.randint(2, 5)):
    process = soak.start(name, str(folder), stderr=subprocess.DEVNULL)
    line_of(process)  # that it works
    time.sleep(soak.rng.expovariate(1.0))
    soak.kills += process.poll() is None
    end_group(process)
    check_whole(folder)
  soak.run(name, str(folder))
  check_whole(folder)
  check_same(folder / result, soak.reference / name / result)
  return {"left over": left_over(folder)}


def kill_batches(soak: Soak) -> dict[str, Any]:
  """A batch of which now a worker, now the parent, now all are killed; what is written stays as it is."""
  folder, there = soak.begun("batch"), dict[Path, bytes]()
  for way in soak.rng.choices(("worker", "parent", "all"), k=3):
    process = soak.start(*batch_of(soak, folder), module="gaussjax.cli", stderr=subprocess.DEVNULL)
    for _ in range(len(there) + soak.rng.randint(0, 2)):
      line_of(process)  # of a file that is written, or there
    time.sleep(soak.rng.expovariate(1.0))
    kill_some(soak, process, way)
    check_whole(folder)
    for path, data in there.items():
      if not path.exists() or path.read_bytes() != data:
        raise WrongError(f"{path} was there, and is changed or lost")
    there |= {path: path.read_bytes() for path in folder.glob("*.gjx")}
  soak.command(*batch_of(soak, folder))
  check_whole(folder)
  for expected in sorted((soak.reference / "batch").glob("*.gjx")):
    check_same(folder / expected.name, expected)
  if (folder / "failures.json").exists():
    raise WrongError("failures.json is there after a batch without failures")
  return {"left over": left_over(folder)}


def kill_some(soak: Soak, process: subprocess.Popen, way: str) -> None:
  """Kills a worker, after which the batch must end well; or the parent, whose workers must end; or all of them."""
  if process.poll() is not None:
    end_group(process)
  elif way == "worker":
    workers = workers_of(process.pid)
    if workers:
      with contextlib.suppress(ProcessLookupError):
        os.kill(soak.rng.choice(workers), signal.SIGKILL)
        soak.kills += 1
    status, _, _ = soak.finish(process)
    if status:
      raise WrongError(f"a batch whose worker was killed has status {status}")
  elif way == "parent":
    soak.kills += 1
    process.kill()
    process.wait()
    deadline = time.monotonic() + ORPHAN_SECONDS
    while is_there(process.pid):
      if time.monotonic() > deadline:
        end_group(process)
        raise WrongError(f"workers live on {ORPHAN_SECONDS} s after their parent was killed")
      time.sleep(0.1)
    end_group(process)
  else:
    soak.kills += 1
    end_group(process)


def is_there(group: int) -> bool:
  """Whether a process of a group is left."""
  try:
    os.killpg(group, 0)
  except ProcessLookupError:
    return False
  return True


def workers_of(parent: int) -> list[int]:
  """Children that work; the tracker of multiprocessing is none."""
  found = []
  with contextlib.suppress(OSError):
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
      if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
        found.append(int(child))
  return found


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[bool]:
  """A folder of its own in memory; False where this user may not have one, or this system has none."""
  done = None
  with contextlib.suppress(OSError):
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
  try:
    yield done is not None and done.returncode == 0
  finally:
    if done is not None and done.returncode == 0:
      subprocess.run(["umount", str(folder)], capture_output=True, check=True)


def refused_write(soak: Soak, folder: Path, words: str, *before: str) -> None:
  """A picture that cannot be written: one line, the old one stays, nothing else is there."""
  out = folder / "out.png"
  arguments = ("decode", reference_file(soak), str(out), "--force")
  old, names = out.read_bytes(), sorted(folder.iterdir())
  error = soak.run(*before, *arguments, status=2) if before else soak.command(*arguments, status=2)
  lines = [line for line in error.splitlines() if line != "working"]
  if len(lines) != 1 or words not in lines[0]:
    raise WrongError(f"a write that cannot be was told of by {error!r}, expected one line with {words}")
  if out.read_bytes() != old or sorted(folder.iterdir()) != names:
    raise WrongError(f"a write that failed changed {folder}")


def fill_disks(soak: Soak) -> dict[str, Any]:
  """Files may not grow beyond some bytes; then a disk that is full, where one can be had."""
  folder = soak.begun("full")
  shutil.copy(soak.reference / "picture.png", folder / "out.png")
  most = soak.rng.randrange((folder / "out.png").stat().st_size)
  refused_write(soak, folder, "File too large", "limited", str(most))
  with mounted(folder, "size=64k") as there:
    if there:
      shutil.copy(soak.reference / "picture.png", folder / "out.png")
      with contextlib.suppress(OSError), (folder / "rest").open("wb", buffering=0) as file:
        while True:
          file.write(bytes(4096))
      refused_write(soak, folder, "No space left on device")
  return {} if there else {"not tried": "a disk that is full: no tmpfs may be mounted"}


def try_read_only(soak: Soak) -> dict[str, Any]:
  """A folder that cannot be written to is refused before the work."""
  folder = soak.begun("read_only")
  picture = str(soak.reference / "in" / "0.png")
  with mounted(folder, "ro,size=64k") as there:
    if not there:
      folder.chmod(0o555)
    try:
      if os.access(folder, os.W_OK):
        return {"not tried": "a read-only folder: this user writes to any"}
      error = soak.command("encode", picture, str(folder / "new.gjx"), status=2)
      if "cannot be written" not in error or error.count("\n") != 1 or any(folder.iterdir()):
        raise WrongError(f"a read-only folder was answered by {error!r}")
    finally:
      if not there:
        folder.chmod(0o755)
  return {}


def share_a_cache(soak: Soak) -> dict[str, Any]:
  """Two processes begin with one empty cache of programs, one is killed; a third must not notice."""
  folder = soak.begun("shared")
  environment = soak.environment | {"XDG_CACHE_HOME": str(folder / "cache")}
  outs = [folder / f"{index}.png" for index in range(3)]
  decode = lambda out: ("decode", reference_file(soak), str(out))
  first, second = (soak.start(*decode(out), module="gaussjax.cli", env=environment) for out in outs[:2])
  try:
    time.sleep(soak.rng.uniform(1.0, 6.0))
    soak.kills += second.poll() is None
  finally:
    end_group(second)
  status, _, error = soak.finish(first)
  if status:
    raise WrongError(f"the process that was left has status {status}: {error[-500:]}")
  soak.command(*decode(outs[2]), env=environment)
  for out in (outs[0], outs[2]):
    check_same(out, soak.reference / "picture.png")
  check_whole(folder)
  return {}


def live_on(soak: Soak) -> dict[str, Any]:
  """A round of the process that lives on."""
  if soak.steady is None or soak.steady.poll() is not None:
    soak.steady = soak.start(
      "steady", str(soak.begun("steady")), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=1
    )
    line_of(soak.steady)
  assert soak.steady.stdin is not None
  soak.steady.stdin.write("go\n")
  soak.steady.stdin.flush()
  answer = line_of(soak.steady)
  if not answer:
    raise WrongError(f"the process that lives on ended with status {soak.steady.wait()}")
  return json.loads(answer) | {"process": soak.steady.pid}


OPERATIONS: dict[str, Callable[[Soak], dict[str, Any]]] = {
  "fit": lambda soak: kill_again_and_again(soak, "fit", "set.npz"),
  "encode": lambda soak: kill_again_and_again(soak, "encode", "file.gjx"),
  "batch": kill_batches,
  "full disk": fill_disks,
  "read-only folder": try_read_only,
  "shared cache": share_a_cache,
  "living on": live_on,
}


def next_kind(rows: list[rowfile.Row], kills: int) -> str:
  """In turn; of those that are to be killed the ones with the fewest kills first, twice as often as the others."""
  count = lambda kind: sum(row["kind"] == kind for row in rows)
  others = [kind for kind in OPERATIONS if kind not in KILLED]
  lacking = [kind for kind in KILLED if killed(rows, kind) < kills]
  if lacking and len(rows) % 3:
    return min(lacking, key=lambda kind: killed(rows, kind))
  return min(others if lacking else OPERATIONS, key=count)


def killed(rows: list[rowfile.Row], kind: str) -> int:
  """Kills in operations of a kind."""
  return sum(row["kills"] for row in rows if row["kind"] == kind)


def main() -> int:
  """Does operations until the time is over, then prints the table."""
  if os.name != "posix":
    raise ValueError(f"got {sys.platform}, expected a system that has SIGKILL, /proc and RLIMIT_FSIZE, as Linux")
  folder, kills, minutes = Path(FLAGS.out_dir), FLAGS.kills, FLAGS.minutes
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / "soak.jsonl"
  soak, interrupted = Soak(folder, random.Random(f"{FLAGS.seed} {len(rowfile.read(path))}")), False
  prepare(soak)
  try:
    with runner.interruptible() as requested:
      rows = rowfile.read(path)
      while (spent := sum(row["seconds"] for row in rows)) < 60 * minutes:
        if interrupted := requested():
          break
        row = operated(soak, next_kind(rows, kills))
        rowfile.append(path, row)
        rows.append(row)
        spent += row["seconds"]
        said = row.get("wrong") or ", ".join(f"{name} {value}" for name, value in row.items() if name not in SAID)
        left = max(0.0, minutes - spent / 60)
        print(f"{spent / 60:6.1f} of {minutes:g} min  {row['kind']}: {said}  ETA {left:.1f} min", flush=True)
  finally:
    if soak.steady is not None:
      end_group(soak.steady)
  status = summarise(rowfile.read(path), kills)
  return runner.INTERRUPTED if interrupted else status


SAID = ("kind", "seconds", "process", "commit", "date")


def operated(soak: Soak, kind: str) -> rowfile.Row:
  """The row of an operation; what is wrong is in it, and the soak goes on."""
  soak.kills, began, found = 0, time.monotonic(), dict[str, Any]()
  try:
    found = OPERATIONS[kind](soak)
  except (WrongError, subprocess.TimeoutExpired) as error:
    found = {"wrong": str(error)}
  return {
    "kind": kind,
    "seconds": time.monotonic() - began,
    "kills": soak.kills,
    **found,
    "commit": rowfile.commit(),
  }


def growth(rows: list[rowfile.Row]) -> tuple[int, int, int]:
  """(rounds, bytes by which memory grew, by how many open files) of the process that lived on for longest."""
  lives: dict[int, list[rowfile.Row]] = {}
  for row in rows:
    if "memory" in row:
      lives.setdefault(row["process"], []).append(row)
  longest = max(lives.values(), key=len, default=[])[WARM_ROUNDS:]
  third = len(longest) // 3
  if not third:
    return len(longest), 0, 0
  median = lambda part, name: statistics.median(row[name] for row in part)
  memory, handles = (median(longest[-third:], of) - median(longest[:third], of) for of in ("memory", "handles"))
  return len(longest), round(memory), round(handles)


def summarise(rows: list[rowfile.Row], kills: int) -> int:
  """Prints the table: the exit status."""
  from gaussjax import report

  table, wrong = [], [row for row in rows if "wrong" in row]
  for kind in OPERATIONS:
    of = [row for row in rows if row["kind"] == kind]
    asked = f"{killed(rows, kind)} of {kills}" if kind in KILLED else str(killed(rows, kind))
    left = str(sum(row.get("left over", 0) for row in of))
    bad = str(sum("wrong" in row for row in of))
    untried = sum("not tried" in row for row in of)
    table.append((kind, str(len(of)), asked, bad, left, str(untried)))
  print(report.table(table, ("kind", "operations", "kills", "wrong", "temporary names left", "not tried")))
  damaged = sum(row.get(name, 0) for row in rows for name in ("refused", "drawn", "read"))
  rounds, memory, handles = growth(rows)
  print(f"{damaged} damaged files; {sum(row['seconds'] for row in rows) / 60:.1f} minutes")
  print(
    f"the process that lived longest, {rounds} rounds: memory {memory / 2**20:+.1f} MB, open files {handles:+d}"
  )
  for row in wrong:
    print(f"wrong, {row['kind']}: {row['wrong']}")
  enough = all(killed(rows, kind) >= kills for kind in KILLED)
  if not enough:
    print(f"fewer kills than {kills}: the same command with more --minutes goes on")
  return int(bool(wrong) or not enough or memory > GROWTH or handles > 2)


if __name__ == "__main__":
  define_flags()
  runner.run(main, __doc__)
