"""Many tasks at once: nothing is lost when processes and machines die, and the bytes are those of one process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageOps

import gaussjax
from gaussjax import cli, engines
from gaussjax.cli import batch

ROOT = Path(gaussjax.__file__).parent.parent
PHOTOGRAPH = ROOT / "experiments" / "data" / "kodim23.png"
OPTIONS = ("--size=1000", "-e0", "--layers=2")


@pytest.fixture(autouse=True)
def _leave_jax_as_it_is(monkeypatch):
  """Here; the workers start their own. And those of Ray and Slurm find this file."""
  monkeypatch.setattr("gaussjax.startup.prepare_jax", lambda: None)
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(Path(__file__).parent)]))


def note(log, *words):
  with open(log, "a") as file:
    file.write(" ".join(map(str, words)) + "\n")


def notes(log):
  return [line.split() for line in Path(log).read_text().splitlines()] if Path(log).exists() else []


def dying(log, name, deaths):
  """A task whose first attempts are killed; with deaths < 0 it raises."""
  note(log, name)
  if deaths < 0:
    raise OSError(28, "No space left on device", name)
  if sum(line == [name] for line in notes(log)) <= deaths:
    os.kill(os.getpid(), signal.SIGKILL)
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
  return {"name": name, "cores": cores, "threads": os.environ["PJRT_NPROC"], "jax": "jax" in sys.modules}


def sleeping(folder, name):
  """A task that does not end by itself, and tidies up when it is ended."""
  try:
    (Path(folder) / f"{name}.started").write_text(str(os.getpid()))
    time.sleep(600)
  finally:
    (Path(folder) / f"{name}.tidied").touch()


def encoding_on_ray(log, source, target, options):
  import ray

  place = Path(source).name, ray.get_runtime_context().get_node_id(), os.getpid()
  note(log, "start", *place)
  record = batch.encode_task(source, target, options)
  note(log, "skipped" if "skipped" in record else "wrote", *place)
  return record


def in_process(capsys, *arguments):
  with pytest.raises(SystemExit) as ended:
    cli.main([str(argument) for argument in arguments])
  captured = capsys.readouterr()
  return ended.value.code, captured.out, captured.err


def encode_alone(source, out):
  """Files by one process, another than this: its programs are optimised, as those of the workers."""
  command = [sys.executable, "-m", "gaussjax.cli", "batch", source, "--out_dir", out, *OPTIONS]
  subprocess.run([*map(str, command)], check=True, capture_output=True)


def pictures(folder, count):
  """Small ones, of which each file has as many Gaussians: all share compiled programs."""
  folder.mkdir()
  small = Image.open(PHOTOGRAPH).resize((32, 24))
  turned = (small, ImageOps.mirror(small), ImageOps.flip(small), ImageOps.mirror(ImageOps.flip(small)))
  for index in range(count):
    turned[index % 4].point(lambda value, add=index // 4: min(value + add, 255)).save(folder / f"p{index}.png")
  return folder


def files_of(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_workers_write_the_bytes_of_one_process_and_list_what_failed(tmp_path, capsys):
  source, one, two = pictures(tmp_path / "in", 2), tmp_path / "one", tmp_path / "two"
  encode_alone(source, one)
  (source / "bad.png").write_text("hello")
  (source / "there.png").write_bytes((source / "p0.png").read_bytes())
  two.mkdir()
  (two / "there.gjx").write_bytes(b"mine")
  batch = ("batch", source, tmp_path / "none.png", "--out_dir", two, *OPTIONS, "--workers=2")
  status, text, error = in_process(capsys, *batch, "--json")
  report, failures = json.loads(text), json.loads((two / "failures.json").read_text())
  assert status == 2 and error.splitlines()[-1] == "gaussjax: 2 of 5 pictures could not be encoded"
  assert [Path(row["input"]).name for row in report["results"]] == [
    "bad.png",
    "p0.png",
    "p1.png",
    "there.png",
    "none.png",
  ]
  assert report["failed"] == 2 and failures == [row for row in report["results"] if "error" in row]
  assert [row["input"] for row in failures] == [str(source / "bad.png"), str(tmp_path / "none.png")]
  assert failures[0]["error"].startswith("not a readable image") and f"{source / 'bad.png'}: not a" in error
  written = files_of(two)
  assert written.pop("there.gjx") == b"mine" and written.pop("failures.json") and written == files_of(one)
  (source / "bad.png").unlink()
  status, text, error = in_process(capsys, "batch", source, "--out_dir", two, *OPTIONS, "--workers=2")
  assert (status, error) == (0, "") and text.count("there already") == 3 and not (two / "failures.json").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
def test_a_worker_that_is_killed_fails_its_task_only(tmp_path):
  log, tasks = tmp_path / "log", [("once", 1), ("never", 0), ("always", 9), ("full", -1), ("last", 0)]
  outcomes = list(engines.run(dying, [(log, *task) for task in tasks], workers=2))
  records = {tasks[outcome.number][0]: outcome.record for outcome in outcomes}
  errors = {tasks[outcome.number][0]: outcome.error for outcome in outcomes if outcome.error}
  assert len(outcomes) == 5 and errors.keys() == {"always", "full"}
  assert "SIGKILL" in errors["always"] and errors["full"] == "full: No space left on device"
  assert Counter(name for (name,) in notes(log)) == {"once": 2, "never": 1, "always": 3, "full": 3, "last": 1}
  shares = engines.core_shares(2)
  for name in ("once", "never", "last"):
    assert records[name]["name"] == name and records[name]["jax"]
    assert not hasattr(os, "sched_setaffinity") or records[name]["cores"] in shares
    assert int(records[name]["threads"]) in map(len, shares)


def test_each_core_is_a_workers(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {9, 2, 3, 4, 5, 6, 7, 8}, raising=False)
  assert engines.core_shares(3) == [[2, 3], [4, 5, 6], [7, 8, 9]]
  assert engines.core_shares(10) == [[core] for core in (2, 3, 4, 5, 6, 7, 8, 9, 2, 3)]


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups here")
def test_an_interruption_ends_the_workers(tmp_path):
  code = f"""
import signal
import test_engines
from gaussjax import engines
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have it ignored in the background
try:
  list(engines.run(test_engines.sleeping, [({str(tmp_path)!r}, name) for name in "ab"], workers=2))
except KeyboardInterrupt:
  print("interrupted")
"""
  script = tmp_path / "script.py"
  script.write_text(f"if __name__ == '__main__':\n  exec({code!r})\n")
  command = [sys.executable, script]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
  while len(list(tmp_path.glob("*.started"))) < 2:
    assert process.poll() is None, process.communicate()
    time.sleep(0.05)
  os.killpg(process.pid, signal.SIGINT)  # as a terminal does
  assert process.communicate(timeout=300) == (b"interrupted\n", b"")
  for name in "ab":
    assert (tmp_path / f"{name}.tidied").exists()
    with pytest.raises(ProcessLookupError):
      os.kill(int((tmp_path / f"{name}.started").read_text()), 0)


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_extra_is_one_line(tmp_path, capsys, monkeypatch, engine, package):
  monkeypatch.setitem(sys.modules, package, None)
  arguments = ("batch", PHOTOGRAPH, "--out_dir", tmp_path / "out", f"--engine={engine}")
  status, out, error = in_process(capsys, *arguments)
  assert (status, out, error.count("\n")) == (2, "", 1) and f"pip install 'gaussjax[{engine}]'" in error


@pytest.mark.filterwarnings("ignore")
def test_ray_goes_on_when_a_node_dies(tmp_path, capsys, monkeypatch):
  """Two nodes of one core each; one is killed while it encodes its second picture or a later one."""
  pytest.importorskip("ray")
  from ray.cluster_utils import Cluster

  source, one, two, log = pictures(tmp_path / "in", 8), tmp_path / "one", tmp_path / "two", tmp_path / "log"
  encode_alone(source, one)
  options = vars(cli.parser().parse_args(["batch", ".", "--out_dir=.", *OPTIONS]))
  del options["run"]
  tasks = [(log, str(path), str(two / f"{path.stem}.gjx"), options) for path in sorted(source.iterdir())]
  cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
  doomed = cluster.add_node(num_cpus=1)

  def kill():
    begun = lambda: sum(line[0] == "start" and line[2] == doomed.node_id for line in notes(log))
    while begun() < 2:
      time.sleep(0.05)
    cluster.remove_node(doomed, allow_graceful=False)

  killer = threading.Thread(target=kill, daemon=True)
  killer.start()
  try:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    outcomes = list(engines.run(encoding_on_ray, tasks, engine="ray", workers=2))
    killer.join(timeout=60)
  finally:
    cluster.shutdown()
  for name in sorted(path.name for path in source.iterdir()):
    print(name, [(line[0], line[2][:6], line[3]) for line in notes(log) if line[1] == name])
  assert sorted(outcome.number for outcome in outcomes) == list(range(8))
  assert not [outcome.error for outcome in outcomes if outcome.error]
  assert files_of(two) == files_of(one)
  assert Counter(line[1] for line in notes(log) if line[0] == "wrote") == dict.fromkeys(files_of(source), 1)
  starts = [line for line in notes(log) if line[0] == "start"]
  assert len({line[2] for line in starts}) == 2 and len(starts) == 9  # the one that was cut off came again


@pytest.mark.filterwarnings("ignore")
def test_ray_tries_a_task_again(tmp_path, monkeypatch):
  ray = pytest.importorskip("ray")
  log, tasks = tmp_path / "log", [("once", 1), ("always", 9), ("full", -1)]
  with (
    monkeypatch.context() as patch,
    pytest.raises(ValueError, match=r"RAY_ADDRESS=127\.0\.0\.1:1, where no Ray is"),
  ):
    patch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    next(engines.run(dying, [(log, "x", 0)], engine="ray"))
  ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
  try:
    outcomes = list(engines.run(dying, [(log, *task) for task in tasks], engine="ray", workers=2))
  finally:
    ray.shutdown()
  errors = {tasks[outcome.number][0]: outcome.error for outcome in outcomes if outcome.error}
  assert len(outcomes) == 3 and errors.keys() == {"always", "full"}
  assert errors["full"] == "full: No space left on device" and "\n" not in errors["always"]
  assert Counter(name for (name,) in notes(log)) == {"once": 2, "always": 3, "full": 3}


@pytest.mark.filterwarnings("ignore")
def test_slurms_jobs_are_tried_again(tmp_path, monkeypatch):
  """By the stand-in for Slurm that submitit has."""
  pytest.importorskip("submitit")
  with monkeypatch.context() as patch, pytest.raises(ValueError, match="no srun is here"):
    patch.setenv("PATH", str(tmp_path))
    patch.delenv("SUBMITIT_EXECUTOR", raising=False)
    next(engines.run(dying, [(tmp_path / "log", "x", 0)], engine="slurm", folder=tmp_path))
  monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
  for tasks, kept in (([("good", 0)], False), ([("once", 1), ("never", 0), ("full", -1)], True)):
    log = tmp_path / f"log{kept}"
    ends = engines.run(dying, [(log, *task) for task in tasks], engine="slurm", workers=2, folder=tmp_path)
    with contextlib.closing(ends):
      outcomes = {tasks[outcome.number][0]: outcome for outcome in ends}
    assert outcomes.keys() == dict(tasks).keys() and (tmp_path / ".submitit").exists() == kept
  assert [name for name, outcome in outcomes.items() if outcome.error] == ["full"]
  assert outcomes["full"].error == "full: No space left on device"
  assert Counter(name for (name,) in notes(log)) == {"once": 2, "never": 1, "full": 3}


ORPHANING = """
import sys
from gaussjax import engines
import test_engines
for _ in engines.run(test_engines.sleeping, [(sys.argv[1], "a"), (sys.argv[1], "b")], workers=2): pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
  """And tidy up: else they would go on for as long as a picture takes, on cores that somebody else was given."""
  parent = subprocess.Popen([sys.executable, "-c", ORPHANING, str(tmp_path)])
  names = ("a", "b")
  try:
    wait_until(lambda: all((tmp_path / f"{name}.started").exists() for name in names) or parent.poll() is not None)
    assert parent.poll() is None
    parent.kill()
    parent.wait()
    wait_until(lambda: all((tmp_path / f"{name}.tidied").exists() for name in names))
  finally:
    parent.kill()
    for path in tmp_path.glob("*.started"):
      with contextlib.suppress(ProcessLookupError, ValueError):
        os.kill(int(path.read_text()), signal.SIGKILL)


def wait_until(holds):
  deadline = time.monotonic() + 120  # far more than it takes
  while not holds():
    assert time.monotonic() < deadline
    time.sleep(0.05)
