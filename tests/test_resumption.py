"""An encoding that was interrupted goes on to the same bytes. That processes may be killed is in test_cli.py."""

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scenes import scene

import gaussjax
from gaussjax.fitting import checkpoints
from gaussjax.gjx import encoding, grids, search

PHOTOGRAPH = Path(__file__).parent.parent / "experiments" / "data" / "kodim23.png"
# As in test_cli.py, so that programs are compiled once.
SMALL, SIZE, COUNT = np.asarray(Image.open(PHOTOGRAPH).resize((32, 24))), 1000, 192
pytestmark = pytest.mark.usefixtures("few")
VISUAL = gaussjax.Effort.level(0, "visual")
GIVEN = scene(COUNT, 24, 32)._replace(log_weights=None)
GIVEN = GIVEN._replace(means=jnp.clip(GIVEN.means, 0, 24))


class InterruptionError(Exception):
  pass


def encode(image, checkpoint=None, *, until=math.inf, **goal):
  """(the bytes, or None if the report number `until` was answered by an exception, the reports before it)."""
  reports = []

  def progress_fn(*report):
    if len(reports) == until:
      raise InterruptionError
    reports.append(report)

  try:
    options = {"effort": 0} | goal
    return gaussjax.encode(image, checkpoint=checkpoint, progress_fn=progress_fn, **options), reports
  except InterruptionError:
    return None, reports


def check_going_on(image, folder, places, **goal):
  """An encoding that is interrupted at these places of its reports, one after another, against one that is not."""
  whole, expected = encode(image, **goal)
  checkpoint, begin = gaussjax.Checkpoint(folder, every_steps=1), 0
  for stage, done, occurrence in places:
    place = [at for at, report in enumerate(expected) if report[:2] == (stage, done)][occurrence]
    data, reports = encode(image, checkpoint, until=place - begin, **goal)
    assert data is None and reports == expected[begin:place]
    # A fit keeps every record but that of its start, a rounding each stage when it is done.
    first = expected[place - 1][1] == 0 if stage != "quantise" else expected[place - 1][1] < done
    begin = place - first
  assert encode(image, checkpoint, **goal) == (whole, expected[begin:])
  assert encode(image, checkpoint, **goal) == (whole, [])  # all its parts are done
  checkpoints.discard_parts(folder)
  assert not folder.exists()
  return whole


def test_a_size(tmp_path):
  """In the fit at its first record and later, in the rounding at the first stage's end, between two, at the end."""
  folder = tmp_path / "checkpoint"
  places = [("fit", 10, 0), ("fit", 50, 0), ("quantise", 4, 0), ("quantise", 20, 1), ("quantise", 64, 0)]
  check_going_on(SMALL, folder, places, size=SIZE)


def test_a_size_in_two_tries(tmp_path, monkeypatch):
  """Each of the fits and roundings is a part of its own."""
  monkeypatch.setattr(search, "_octaves", lambda index: 0)  # so that programs are compiled once
  places = [("fit", 10, 0), ("quantise", 8, 0), ("fit", 10, 1), ("quantise", 8, 3)]
  two = encoding.EFFORTS[0]._replace(tries=2)
  check_going_on(SMALL, tmp_path / "checkpoint", places, size=SIZE, effort=two)


def test_decibels(tmp_path, monkeypatch):
  """The pilot and the fit are two parts, also where they have as many Gaussians."""
  monkeypatch.setattr(search, "_most", lambda work: COUNT)
  monkeypatch.setattr(search, "_count_of_table", lambda count, work: COUNT)
  places = [("fit", 0, 0), ("quantise", 32, 0)]
  check_going_on(SMALL, tmp_path / "checkpoint", places, target_psnr=24)


def test_a_set(tmp_path):
  """Rounded again and again, each time to other steps, which are parts of their own."""
  places = [("quantise", 40, 0), ("quantise", 8, 2)]
  check_going_on(GIVEN, tmp_path / "checkpoint", places, target_psnr=40)


def test_others_checkpoints_are_refused_in_one_line(tmp_path, monkeypatch):
  checkpoint = gaussjax.Checkpoint(tmp_path, every_steps=1, label="mine")
  assert encode(SMALL, checkpoint, until=4, size=SIZE)[0] is None
  monkeypatch.setattr("gaussjax.fitting.recipes._ended", None)
  for words, image, label, options in (
    ("got 1000 bytes, expected 1200 bytes", SMALL, "mine", {"size": 1200}),
    ("got 1000 bytes, expected 24.0 dB", SMALL, "mine", {"target_psnr": 24}),
    ("got 1000 bytes, expected quality 50.0", SMALL, "mine", {}),
    (
      "got effort of 120 and 4 steps, expected effort of 180 and 5 steps",
      SMALL,
      "mine",
      {"size": SIZE, "effort": 1},
    ),
    ("got 1 layers, expected 2 layers", SMALL, "mine", {"size": SIZE, "layers": 2}),
    ("got seed 0, expected seed 3", SMALL, "mine", {"size": SIZE, "effort": encoding.EFFORTS[0]._replace(seed=3)}),
    ("expected effort of 120 and 4 steps to the eye", SMALL, "mine", {"size": SIZE, "effort": VISUAL}),
    ("got image ", SMALL[::-1], "mine", {"size": SIZE}),
    ("got mine, expected yours", SMALL, "yours", {"size": SIZE}),
  ):
    with pytest.raises(ValueError, match=words) as caught:
      gaussjax.encode(image, checkpoint=checkpoint._replace(label=label), **{"effort": 0} | options)
    assert "is of another encoding" in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_is_written_at_first_and_quantizers_need_not_know_of_checkpoints(tmp_path):
  def plain(fitted, target, steps, *, stage_steps, seed, loss, progress_fn):
    return grids.nearest(fitted, steps)

  for effort in (encoding.Effort(1, 1, quantizer=plain), 0):
    checkpoint = gaussjax.Checkpoint(tmp_path / "checkpoint", every_steps=1, after_seconds=math.inf)
    assert gaussjax.encode(GIVEN, effort=effort, size=SIZE, checkpoint=checkpoint)
    assert list(tmp_path.iterdir()) == []
