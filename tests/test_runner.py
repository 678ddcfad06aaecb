"""The runners as a user meets them: real processes, right and wrong input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gaussjax
from experiments import variants
from gaussjax.fitting import recipes

ROOT = Path(__file__).parent.parent


def run(*arguments, module="experiments.fit_image"):
  command = [sys.executable, "-m", module, *arguments]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


# Every fit here is of these flags' sizes, so that the processes share compiled programs.
FLAGS = ("--height=24", "--num_gaussians=30", "--init=grid")
LONG = (*FLAGS, "--iterations=3000", "--checkpoint_every=50")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """(what a fit that nobody disturbs prints, its folder)."""
  out = tmp_path_factory.mktemp("runner") / "out"
  done = run(*LONG, f"--out_dir={out}")
  assert done.returncode == 0, done.stderr
  return done, out


def test_what_a_runner_started_ends_with_it():
  code = """
import subprocess, sys
from experiments import runner
child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
runner.run(lambda: subprocess.run([sys.executable, "-c", child]).returncode, "")
"""
  with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
    child = int(process.stdout.readline())
    process.terminate()
    assert process.wait(60) == 130
  with pytest.raises(ProcessLookupError):
    for _ in range(100):  # killed, it may take a moment to go
      os.kill(child, 0)
      time.sleep(0.1)


def test_a_fit_from_end_to_end(undisturbed):
  done, out = undisturbed
  names = ["comparison.png", "curve.png", "ellipses.png", "gaussians.npz", "metrics.json", "render.png"]
  assert sorted(path.name for path in out.iterdir()) == [*names, "report.html"]
  figures = json.loads((out / "metrics.json").read_text())
  assert figures["flags"]["num_gaussians"] == 30 and figures["environment"]["jax"]
  assert [record["step"] for record in figures["history"]] == list(range(0, 3001, 10))
  loaded = gaussjax.load(out / "gaussians.npz")
  written = gaussjax.read_image(out / "render.png")
  np.testing.assert_allclose(np.clip(gaussjax.render(loaded), 0, 1), written, atol=0.51 / 255)
  for word in ("psnr", "w_median", str(out)):
    assert word in done.stdout
  for word in ("loss", "PSNR", "min scale", "W_median", "covered", "steps/s", "ETA"):
    assert word in done.stderr


def test_help_is_quick_and_does_not_import_jax():
  code = (
    "import runpy, sys; sys.argv = ['fit_image', '--help']\n"
    "try: runpy.run_module('experiments.fit_image', run_name='__main__')\n"
    "except SystemExit as stop: assert stop.code == 0, stop.code\n"
    "assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
  )
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "--num_gaussians" in done.stdout


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    (["--num_gausians=5"], "did you mean --num_gaussians?"),
    (["--blend=multiply"], "weighted_average"),
    (["--num_gaussians=many"], "many"),
    (["photo.png"], "photo.png"),
    (["--image=/none.png"], "/none.png"),
    (["--image=."], "not a file"),
    (["--num_gaussians=0"], "expected at least 1"),
    (["--learning_rate=inf", "--height=16"], "finite"),
    (["--resume"], "holds no checkpoint"),
  ],
)
def test_a_users_mistake_is_one_line_and_keeps_old_results(tmp_path, arguments, expected):
  old = tmp_path / "render.png"
  old.write_bytes(b"old")
  done = run(*arguments, f"--out_dir={tmp_path}")
  assert done.returncode == 2
  assert expected in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
  assert old.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_divergence_is_one_line_and_exit_1(tmp_path):
  done = run("--learning_rate=1e30", *FLAGS, f"--out_dir={tmp_path}")
  assert done.returncode == 1, done.stderr
  assert "error: step" in done.stderr and "Traceback" not in done.stderr


def start(*arguments):
  """A process of the runner, left to run."""
  command = [sys.executable, "-m", "experiments.fit_image", *arguments]
  return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def wait_for_checkpoint(process, out):
  """Returns once a checkpoint is there."""
  while not list((out / "checkpoint").glob("step-*.npz")):
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.05)


def test_a_fit_survives_signals_and_kill_9(undisturbed, tmp_path):
  """One process is terminated, the next killed; the third finishes and equals an undisturbed fit."""
  out, (_, whole) = tmp_path / "out", undisturbed
  first = start(*LONG, f"--out_dir={out}")
  wait_for_checkpoint(first, out)
  first.send_signal(signal.SIGTERM)
  stderr = first.communicate(timeout=120)[1].decode()
  assert first.returncode == 130 and "go on with --resume" in stderr and "Traceback" not in stderr
  assert [path.name for path in out.iterdir()] == ["checkpoint"]
  refused = run(*LONG, f"--out_dir={out}")
  assert refused.returncode == 2 and "--resume" in refused.stderr
  stopped_at = max((out / "checkpoint").iterdir()).name
  second = start(*LONG, f"--out_dir={out}", "--resume")
  while max((out / "checkpoint").glob("step-*.npz")).name == stopped_at:
    assert second.poll() is None, second.stderr.read()
    time.sleep(0.02)
  second.kill()
  assert second.wait(timeout=120) == -signal.SIGKILL
  second.stderr.close()
  done = run(*LONG, f"--out_dir={out}", "--resume")
  assert done.returncode == 0, done.stderr
  assert not (out / "checkpoint").exists()
  assert (out / "render.png").read_bytes() == (whole / "render.png").read_bytes()
  history = [json.loads((folder / "metrics.json").read_text())["history"] for folder in (out, whole)]
  psnr = [[(record["step"], record["psnr"]) for record in records] for records in history]
  assert psnr[0] == psnr[1]


def test_a_sweep_goes_on_where_it_stopped(tmp_path):
  """Two rows; then one is cut off as by a crash, and only that one is made again."""
  gaussjax.write_image(tmp_path / "photo7.png", np.random.default_rng(0).uniform(size=(20, 24, 3)))
  flags = [f"--images={tmp_path}", "--num_gaussians=12", "--seeds=0,1", "--steps=20", "--name=rows"]
  sweep = lambda *more: run(*flags, f"--results_dir={tmp_path / 'out'}", *more, module="experiments.sweep")
  done = sweep()
  assert done.returncode == 0, done.stderr
  path = tmp_path / "out" / "rows.jsonl"
  first, second = path.read_text().splitlines()
  assert json.loads(first)["psnr"] > 0 and json.loads(second)["setting"]["seed"] == 1
  results = ["rows-pictures", "rows.html", "rows.jsonl", "rows.png"]
  assert sorted(file.name for file in path.parent.iterdir()) == results
  path.write_text(first + "\n" + second[:40])
  done = sweep()
  assert done.returncode == 0 and "1/1: photo7.png" in done.stdout, done.stderr
  rows = path.read_text().splitlines()
  assert rows[0] == first and json.loads(rows[1])["psnr"] == json.loads(second)["psnr"]
  path.unlink()
  pictures = path.parent / "rows-pictures"
  for file in pictures.iterdir():
    file.unlink()
  done = sweep("--workers=2")
  assert done.returncode == 0 and "2/2 photo7.png" in done.stdout, done.stderr
  by_seed = lambda lines: {row["setting"]["seed"]: row["psnr"] for row in map(json.loads, lines)}
  assert by_seed(path.read_text().splitlines()) == by_seed(rows)
  assert sorted(file.name for file in path.parent.iterdir()) == results
  assert len(list(pictures.iterdir())) == 4 and (path.parent / "rows.html").read_text().count("<img") == 4
  assert "1/" not in sweep("--summary").stdout.splitlines()[0]
  assert {"commit", "date", "machine", "environment"} <= json.loads(first).keys()
  wrong = sweep("--variants=perfect")
  assert wrong.returncode == 2 and "perfect" in wrong.stderr and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("name", variants.NAMES)
def test_a_recipe_of_each_name_can_be_fitted_by(name):
  """Right by the library's own check, and the same object again, so that programs are found."""
  recipe = variants.recipe(name)
  assert recipes.of(recipe) == recipe and variants.recipe(name) is recipe


def test_the_first_versions_recipe_is_one_rate_in_units_of_the_longer_side():
  recipe = variants.recipe("v1")
  lengths, others = recipes.rates(recipe, 20, 50), recipes.rates(recipe, 20, 50)
  assert lengths.means == lengths.lengths == 0.01 * 50
  assert {others.colors, others.log_scales, others.thetas, others.log_weights} == {0.01}
  assert not recipes.controls_density(recipe) and recipe.schedule(0.7) == 1


def test_acceptance_without_a_stage_says_so():
  done = run(module="experiments.acceptance")
  assert done.returncode == 2 and "stage" in done.stderr and done.stderr.count("\n") == 1
