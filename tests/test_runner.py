"""The runners as a user meets them: real processes, right and wrong input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gaussjax

ROOT = Path(__file__).parent.parent


def run(*arguments, module="experiments.fit_image", cwd=ROOT, **env):
  command = [sys.executable, "-m", module, *arguments]
  environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
  return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment)


def test_a_fit_from_end_to_end(tmp_path):
  out = tmp_path / "out"
  flags = ["--height=24", "--num_gaussians=30", "--iterations=20", f"--out_dir={out}", "--init=grid"]
  done = run(*flags, XDG_CACHE_HOME=str(tmp_path))
  assert done.returncode == 0, done.stderr
  names = ["comparison.png", "curve.png", "ellipses.png", "gaussians.npz", "metrics.json", "render.png"]
  assert sorted(path.name for path in out.iterdir()) == names
  figures = json.loads((out / "metrics.json").read_text())
  assert figures["flags"]["num_gaussians"] == 30 and figures["environment"]["jax"]
  assert [record["step"] for record in figures["history"]] == [0, 10, 20]
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
  done = run("--learning_rate=1e30", "--height=16", "--num_gaussians=9", f"--out_dir={tmp_path}")
  assert done.returncode == 1, done.stderr
  assert "error: step" in done.stderr and "Traceback" not in done.stderr


def test_acceptance_without_a_stage_says_so():
  done = run(module="experiments.acceptance")
  assert done.returncode == 2 and "stage" in done.stderr and done.stderr.count("\n") == 1
