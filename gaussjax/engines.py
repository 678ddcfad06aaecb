"""Many tasks that do not need one another: in processes of this machine, as Ray tasks, or as Slurm jobs.

A task is a call of a function that other processes can import. It writes its result whole or not at all, and
returns what JSON can hold. One that raises, or whose process dies, is tried again, and the others do not notice.
What runs where is up to Ray, to Slurm by way of submitit, and here to workers that have some of the cores each.
"""

import contextlib
import importlib
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from gaussjax import errors, startup

NAMES = ("local", "ray", "slurm")
RETRIES = 2  # of a task that raised or whose process died
GRACE_SECONDS = 2.0  # that a worker has to end by itself
POLL_SECONDS = 0.2  # between looks at Slurm's jobs, of which submitit asks Slurm less often
SLURM_MINUTES = 240  # that a task may take; SBATCH_TIMELIMIT overrides it


class Outcome(NamedTuple):
  """How a task ended."""

  number: int  # of the task
  record: Any  # what the function returned; None after an error
  error: str | None  # of the last attempt, in one line


class _Engine(NamedTuple):
  """Where tasks run. A handle stands for an attempt that was started."""

  most: int  # attempts at a time
  retries: int  # that are left to the caller
  start: Callable[[tuple], Any]  # a task's arguments to a handle
  finished: Callable[[list[Any]], list[tuple[Any, Any, str | None]]]  # waits: (handle, record, error) of some


class _Worker(NamedTuple):
  process: Any
  connection: Any


def run(
  function: Callable,
  tasks: Sequence[tuple],
  *,
  engine: str = "local",
  workers: int | None = None,
  folder: str | os.PathLike = ".",
) -> Generator[Outcome, None, None]:
  """Calls `function(*task)` for each task, and yields outcomes as they come; closing it ends what still runs.

  `engine` is one of NAMES, `workers` how many tasks run at a time: by default one for each core here, and as many
  as there is room for on Ray and Slurm. Slurm's jobs have their logs in `folder`/.submitit, which goes in the end
  if no attempt failed. Raises ValueError, in one line, where the engine is missing.
  """
  if not tasks:
    return
  opened = {"local": _local, "ray": _ray, "slurm": _slurm}[engine](
    importable(function), len(tasks), workers, folder
  )
  queue, going = deque((index, 0) for index in range(len(tasks))), dict[Any, tuple[int, int]]()
  with opened as there:
    while queue or going:
      while queue and len(going) < there.most:
        index, tries = queue.popleft()
        going[there.start(tasks[index])] = index, tries
      for handle, record, error in there.finished(list(going)):
        index, tries = going.pop(handle)
        if error is not None and tries < there.retries:
          queue.append((index, tries + 1))
        else:
          yield Outcome(index, record, error)


def importable(function: Callable) -> Callable:
  """What other processes import: `python -m` calls the module __main__, by which they would not find it."""
  spec = getattr(sys.modules["__main__"], "__spec__", None)
  if function.__module__ == "__main__" and spec is not None:
    return getattr(importlib.import_module(spec.name), function.__qualname__)
  return function


def _extra(module: str, engine: str) -> ModuleType:
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise ValueError(
      f"got the engine {engine}, which needs {module}; pip install 'gaussjax[{engine}]' brings it ({error})"
    ) from error


def _prepare(cores: int) -> None:
  """Before JAX starts in a process of its own: so many threads, and no more of a GPU than is used."""
  os.environ["PJRT_NPROC"] = str(cores)
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else the first takes three quarters
  startup.prepare_jax()


def _called(function: Callable, task: tuple, cores: int) -> Any:
  _prepare(cores)
  return function(*task)


def _attempt(function: Callable, task: tuple) -> tuple[Any, str | None]:
  """(what the function returned, None) or (None, why it did not)."""
  try:
    return function(*task), None
  except Exception as error:  # whatever one task brings, the others go on
    return None, errors.one_line(error)


def core_shares(count: int) -> list[list[int]]:
  """The cores of each of `count` workers, of those that this process may use: equal parts, at least one each."""
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]
  if count >= len(cores):
    return [[cores[index % len(cores)]] for index in range(count)]
  return [cores[index * len(cores) // count : (index + 1) * len(cores) // count] for index in range(count)]


@contextlib.contextmanager
def _local(function: Callable, count: int, asked: int | None, folder: Any) -> Iterator[_Engine]:
  """Processes that each serve one task after another. A handle is a worker's number."""
  del folder
  shares = core_shares(min(asked or len(core_shares(1)[0]), count))
  free, workers = deque(range(len(shares))), dict[int, _Worker]()

  def start(task: tuple) -> int:
    number = free.popleft()
    if number not in workers:
      workers[number] = _start_worker(shares[number])
    with contextlib.suppress(OSError):  # it died idle, which `finished` sees
      workers[number].connection.send((function, task))
    return number

  def finished(numbers: list[int]) -> list[tuple[int, Any, str | None]]:
    found, of = [], dict[Any, int]({workers[number].connection: number for number in numbers})
    for ready in connection.wait(list(of)):
      number = of[ready]
      try:
        record, error = workers[number].connection.recv()
      except (EOFError, OSError):
        record, error = None, _why_ended(workers.pop(number))
      free.append(number)
      found.append((number, record, error))
    return found

  try:
    yield _Engine(len(shares), RETRIES, start, finished)
  finally:
    _end(list(workers.values()))


def _start_worker(cores: list[int]) -> _Worker:
  """A process that serves. Ctrl-C, which a terminal sends to all, is for its parent alone."""
  context = multiprocessing.get_context("spawn")
  ours, theirs = context.Pipe()
  process = context.Process(target=_serve, args=(theirs, cores), daemon=True)
  if hasattr(signal, "pthread_sigmask"):
    resource_tracker.ensure_running()  # starting a process does, and would unblock
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
      process.start()  # inherits the mask
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, before)
  else:
    process.start()
  theirs.close()
  return _Worker(process, ours)


def _serve(parent: Any, cores: list[int]) -> None:
  """A worker's life: tasks come and their ends go by the connection, until its other side is gone."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # by way of each `finally`, where half a file is removed
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, cores)
  threading.Thread(target=_end_with_parent, daemon=True).start()
  _prepare(len(cores))
  with contextlib.suppress(EOFError, OSError):
    while True:
      parent.send(_attempt(*parent.recv()))


def _end_with_parent() -> None:
  """Waits for the parent's end, however it comes, and ends this worker as the parent would have."""
  parent = multiprocessing.parent_process()
  if parent is None:
    return
  parent.join()
  if hasattr(signal, "pthread_kill"):  # wakes the main thread if it waits
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
  else:
    signal.raise_signal(signal.SIGTERM)
  time.sleep(GRACE_SECONDS)
  os._exit(1)  # it may be deep in XLA, where it writes no file


def _why_ended(worker: _Worker) -> str:
  worker.connection.close()
  worker.process.join(GRACE_SECONDS)
  code = worker.process.exitcode
  if code is not None and code < 0:
    return f"its process was ended by {signal.Signals(-code).name}, as when memory runs out"
  return f"its process ended with status {code}"


def _end(workers: list[_Worker]) -> None:
  for worker in workers:
    worker.process.terminate()
  deadline = time.monotonic() + GRACE_SECONDS
  for worker in workers:
    worker.process.join(max(0, deadline - time.monotonic()))
    worker.process.kill()  # it may be deep in XLA, where it writes no file
    worker.process.join()
    worker.connection.close()


@contextlib.contextmanager
def _ray(function: Callable, count: int, asked: int | None, folder: Any) -> Iterator[_Engine]:
  """Tasks of the cluster at RAY_ADDRESS, or of one on this machine. Ray tries again itself; a handle is its own."""
  del folder
  ray: Any = _extra("ray", "ray")
  own = not ray.is_initialized()
  if own:
    _check_ray_address()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    try:
      ray.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    except Exception as error:
      address = os.environ.get("RAY_ADDRESS", "")
      raise ValueError(f"got RAY_ADDRESS={address}, where Ray does not start ({errors.one_line(error)})") from error
  cores = 1
  if asked is not None:
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    cores = max(1, min(max(nodes), sum(nodes) // asked))
  call = ray.remote(num_cpus=cores, max_retries=RETRIES, retry_exceptions=True)(_called)

  def finished(references: list[Any]) -> list[tuple[Any, Any, str | None]]:
    done, _ = ray.wait(references, num_returns=1)
    try:
      return [(done[0], ray.get(done[0]), None)]
    except ray.exceptions.RayError as error:
      return [(done[0], None, errors.one_line(getattr(error, "cause", None) or error))]

  try:
    yield _Engine(asked or count, 0, lambda task: call.remote(function, task, cores), finished)
  finally:
    if own:
      ray.shutdown()  # ends what still runs


def _check_ray_address() -> None:
  """Raises ValueError where nobody listens, which Ray would find out in some minutes."""
  address = os.environ.get("RAY_ADDRESS", "")
  host, _, port = address.rpartition("://")[2].rpartition(":")
  if host and port.isdigit():
    try:
      socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
      raise ValueError(f"got RAY_ADDRESS={address}, where no Ray is ({errors.one_line(error)})") from error


@contextlib.contextmanager
def _slurm(function: Callable, count: int, asked: int | None, folder: Any) -> Iterator[_Engine]:
  """A job each, of one core. SUBMITIT_EXECUTOR=local stands for a cluster, to try. A handle is submitit's job."""
  submitit: Any = _extra("submitit", "slurm")
  executor = os.environ.get("SUBMITIT_EXECUTOR")
  if executor is None and shutil.which("srun") is None:
    raise ValueError("got the engine slurm, but no srun is here; expected a machine of a Slurm cluster")
  logs, going, lost = Path(folder).absolute() / ".submitit", set[Any](), list[str]()
  submit = submitit.AutoExecutor(folder=logs, cluster=executor or "slurm")
  submit.update_parameters(name="gaussjax", cpus_per_task=1, timeout_min=SLURM_MINUTES)

  def start(task: tuple) -> Any:
    job = submit.submit(_attempt, _called, (function, task, 1))
    going.add(job)
    return job

  def finished(jobs: list[Any]) -> list[tuple[Any, Any, str | None]]:
    while not (done := [job for job in jobs if job.done()]):
      time.sleep(POLL_SECONDS)
    found = []
    for job in done:
      going.discard(job)
      error = job.exception()
      record, words = (None, f"its job {job.job_id} ended without a result") if error else job.result()
      lost.extend([words] if words else [])
      found.append((job, record, words))
    return found

  most = asked or (count if submit.cluster == "slurm" else len(core_shares(1)[0]))
  try:
    yield _Engine(most, RETRIES, start, finished)
    if not lost:
      shutil.rmtree(logs, ignore_errors=True)
  finally:
    for job in going:
      job.cancel(check=False)
