"""The bodies of stages and benchmarks: what they make of rows and fits, and that the small ones run."""

import itertools
import json
import types

import imageio.v3 as iio
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gaussjax
from experiments import (
  acceptance,
  benchmark_encode,
  benchmark_own_loop,
  benchmark_render,
  codec_levers,
  efforts,
  rate_distortion,
  rowfile,
  runner,
  sweep,
)
from experiments.stages import (
  density_control,
  files,
  frame_rate,
  passes,
  perceptual_loss,
  plain_fit,
  shapes,
  start,
)
from gaussjax.contrib import passes as fitted_passes
from gaussjax.quality import lpips
from gaussjax.rendering import blends

IMAGES = [runner.PHOTOGRAPH]
# dB that a recipe has at 5,000 Gaussians after 1,000 steps, in a world where a decibel is a tenth more Gaussians.
WORTH = {"balanced": 34.0, "fixed": 32.5, "random": 33.5, "random_fixed": 31.0, "v1": 28.0, "perceptual": 33.8}
WORTH |= {"cholesky": 33.95, "log_cholesky": 33.8}


def row_of(path, image, setting, rows):
  """A row as a sweep would make it, of a fit by a law: 1 dB for each tenth of N, 2 for each tenfold of steps."""
  del path, image, rows
  steps = setting.steps or 100 * setting.seconds
  psnr = WORTH[setting.variant] + 10 * (setting.num_gaussians / 5000 - 1) + 2 * np.log10(steps / 1000)
  better = 0.01 * (setting.variant == "perceptual")
  return {
    "psnr": psnr,
    "seconds": steps / 100,
    "ssim": 0.9 + better,
    "ms_ssim": 0.9 + better,
    "lpips": 0.1 - better,
  }


@pytest.fixture(autouse=True)
def rows_by_law(monkeypatch):
  monkeypatch.setattr(sweep, "row_of", row_of)


def met(criteria):
  return {criterion.name: criterion.met for criterion in criteria}


def test_every_stage_has_two_names():
  assert list(acceptance.STAGES) == [f"v{i}" for i in range(1, 9)]
  assert len(set(acceptance.STAGES.values())) == 8


def test_density_control_is_judged_by_gain_and_by_gaussians():
  gain, least, share = density_control.measure(IMAGES, None)
  assert gain.measured == least.measured == "1.5" and gain.met and least.met
  assert share.measured == "0.7" and share.met  # 31 dB are 3 of 10 less


def test_a_start_is_judged_by_time_and_at_equal_time():
  found = [bool(criterion.met) for criterion in start.measure(IMAGES, None)]
  assert found == [False, False, True, True, True]  # half a decibel is 1.8 times the steps, 1.5 dB are 5.6 times


def test_a_loss_is_judged_by_four_metrics(monkeypatch):
  monkeypatch.setattr(lpips, "available", lambda: True)
  assert list(met(perceptual_loss.measure(IMAGES, None)).values()) == [True] * 4
  monkeypatch.setattr(lpips, "available", lambda: False)
  with pytest.raises(runner.NotMeasuredError):
    perceptual_loss.measure(IMAGES, None)


def test_shapes_are_judged_by_psnr_and_under_stress(monkeypatch):
  monkeypatch.setattr(shapes, "STRESS_STEPS", 1)
  params, bad = jnp.zeros(3), jnp.array([0.0, jnp.nan])

  def fit(image, *, num_gaussians, preset, stop):
    """Euler's stressed fit ends well, Cholesky's with a NaN, log-Cholesky's in an error."""
    kind = type(preset.parameterize(gaussjax.Euler(jnp.zeros((1, 2)), jnp.zeros(1))))
    assert image.shape[:2] == (64, 96) and num_gaussians == 100 and stop.max_steps == 1
    if kind is gaussjax.LogCholesky:
      raise gaussjax.FitError("step 3: the loss is nan. More.")
    state = type("State", (), {"params": params if kind is gaussjax.Euler else bad})
    return gaussjax.FitResult(None, state, [], {"rollbacks": 2.0})

  monkeypatch.setattr(gaussjax, "fit", fit)
  criteria = shapes.measure(IMAGES, None)
  assert [criterion.met for criterion in criteria] == [True, False, True, False, False]
  assert "error: step 3" in criteria[-1].measured
  gaussians = shapes.lines(jax.random.key(0), jnp.zeros((20, 20, 3)), 50)
  aspect = np.exp(gaussians.shape.log_scales[:, 0] - gaussians.shape.log_scales[:, 1])
  assert 20 < aspect.max() <= 200


def test_passes_are_judged_by_what_each_and_all_gain(monkeypatch):
  def fit_passes(image, *, num_gaussians, passes, steps, preset):
    del image, num_gaussians, steps, preset
    report = [fitted_passes.Pass(100, 20.0 + i, 21.0 + i, i != 3) for i in range(passes)]
    return gaussjax.FitResult(None, None, [{"psnr": 20.0}], {"psnr": 33.0}), report

  monkeypatch.setattr(fitted_passes, "fit_passes", fit_passes)
  found = list(met(passes.measure(IMAGES, None)).values())
  assert found == [True, True, True, True, True, True, False, False]  # 32.5 - 2 without, 34 with density control


def test_files_are_judged_at_the_first_rate_that_does(monkeypatch):
  asked = []

  def file_row(path, image, codec, setting, effort, rows):
    asked.append(setting)
    return {"psnr": 31.0 if setting >= 1.2 else 29.0, "bpp": setting, "gaussians": 500}

  monkeypatch.setattr(rate_distortion, "row_of", file_row)
  lever = {"psnr": {"fitted": 31.5, "plain": 30.0, "coded": 30.9}}
  monkeypatch.setattr(codec_levers, "row_of", lambda *_: lever)
  assert list(met(files.measure(IMAGES, None)).values()) == [True, False] and asked == [0.3, 0.6, 1.2]


def test_the_plain_fit_is_judged_by_its_worst_seed(monkeypatch):
  monkeypatch.setattr(plain_fit, "SEEDS", range(2))
  seeds = itertools.count()

  def fit(image, *, num_gaussians, seed, preset):
    record = {"min_scale_px": 0.3, "w_median": 0.9}
    end = 30.0 - 7 * next(seeds)
    history = [{"psnr": 20.0, "loss": 0.01, **record}, {"psnr": end, "loss": 0.002, **record}]
    return gaussjax.FitResult(None, None, history, {})

  monkeypatch.setattr(gaussjax, "fit", fit)
  criteria = plain_fit.fit_criteria("x", plain_fit.sharp_edge(8), 5, gain=6, psnr=22, min_scale=0.128)
  assert [criterion.met for criterion in criteria] == [False, True, True, True, True, True]
  assert plain_fit.complex_pattern(8).shape == plain_fit.sharp_edge(8).shape == (8, 8, 3)


def test_without_a_gpu_frames_are_not_measured():
  if jax.default_backend() == "cpu":
    with pytest.raises(runner.NotMeasuredError, match="GPU"):
      frame_rate.measure()


@pytest.mark.parametrize("drawn_by", ["scanlines", "tiles"])
def test_the_renderers_benchmark_runs(drawn_by):
  row = benchmark_render.measure(24, 31, 20, blends.accumulated_sum, drawn_by)
  assert row["forward_ms"] > 0 and row["value_and_grad_ms"] > 0 and row["evaluations_millions"] > 0


def test_the_own_loops_benchmark_runs():
  image = np.random.default_rng(0).uniform(size=(20, 26, 3)).astype(np.float32)
  assert benchmark_own_loop.own_loop(image, 9, 10) > 0 and benchmark_own_loop.fit(image, 9, 10) > 0


def test_the_encoders_benchmark_runs(monkeypatch, capsys, tmp_path):
  """What its child prints, in this process, since another would compile everything again."""

  def measured(images, effort, bpp, code):
    options = {"images": [str(path) for path in images], "bpp": bpp, "effort": effort}
    monkeypatch.setattr("sys.argv", ["-c", json.dumps(options)])
    capsys.readouterr()
    exec(benchmark_encode.CHILD, {})
    return json.loads(capsys.readouterr().out)

  given = {"efforts": ["0"], "bpp": [8.0], "baseline": "", "cores": "", "each": True, "name": "x", "warm": True}
  given |= {"images": str(tmp_path), "results_dir": str(tmp_path)}
  monkeypatch.setattr(benchmark_encode, "FLAGS", types.SimpleNamespace(**given))
  monkeypatch.setattr(benchmark_encode, "_measured", measured)
  for name in "ab":
    iio.imwrite(tmp_path / f"{name}.png", np.random.default_rng(ord(name)).integers(0, 255, (24, 31, 3), np.uint8))
  assert benchmark_encode.main() == 0 and (tmp_path / "x.png").is_file()
  [row] = rowfile.read(tmp_path / "x.jsonl")
  assert [len(run["stages"]) for run in row["runs"]] == [5, 5] and row["peak_bytes"] > 1e6
  assert row["images"] == ["a.png", "b.png"]


def test_the_table_of_efforts_is_of_equal_psnr(tmp_path):
  run = lambda size, psnr, seconds: {"bytes": size, "psnr": psnr, "seconds": seconds}
  steps_of = benchmark_encode.steps_of
  for effort, steps, share in ((4, steps_of(4), 1.0), (5, steps_of(6), 0.9), (6, [7, 7, 1], 0.8)):  # 5 is now 6
    for bpp in (0.1, 0.2, 0.4):
      runs = [run(1e5 * bpp * share * image, 20 + 40 * bpp, steps[0] + image) for image in (1, 2, 3)]
      row = {
        "each": True,
        "code": "",
        "size": [100, 80, 3],
        "images": ["kodim01.png", "kodim02.png", "kodim04.png"],
        "effort": effort,
        "steps": steps,
        "bpp": bpp,
        "cores": "",
        "runs": runs,
      }
      rowfile.append(tmp_path / "x.jsonl", row)
  found = efforts.runs(rowfile.read(tmp_path / "x.jsonl"))
  table = efforts.compared(found, [0.1, 0.2, 0.4], 4)
  assert [line[0] for line in table] == [4, 6] and [line[1] for line in table] == pytest.approx([0, -10])
  assert table[1][2:] == pytest.approx((24, 28, 36, 1002.5, 1002.5, 1002.5))  # the first run is cold
  theirs = [
    {"image": "kodim02.png", "codec": codec, "bpp": factor * run["bpp"], "psnr": run["psnr"]}
    for codec, factor in (("webp", 2), ("jpeg", 9))
    for run in (found[4, bpp][1] for bpp in (0.1, 0.2, 0.4))
  ]
  [(*_, five), (*_, six)] = efforts.against(found, theirs, "webp")
  assert (float(five), float(six)) == pytest.approx((-50, -55))
  for rates, default in (([0.1], 4), ([0.1, 0.2], 5)):
    with pytest.raises(ValueError, match="expected two at least"):
      efforts.compared(found, rates, default)
  efforts.draw(table, 3, tmp_path / "x.png")
  assert (tmp_path / "x.png").is_file()
