"""What measures a GPU, rehearsed without one: its sections find rows, and none of them stops the others."""

import argparse
import json
import os
import time
from pathlib import Path

import pytest
from PIL import Image

import gaussjax
from experiments import benchmark_gpu, gpu_sections


@pytest.mark.parametrize("section", ["about", "frames", "steps"])
def test_a_section_finds_rows(section, tmp_path, monkeypatch):
  sizes = gpu_sections.small(tmp_path)
  monkeypatch.setattr(gpu_sections, "names", lambda _: ["tiles"])
  rows = list(gpu_sections.SECTIONS[section].measure(sizes))
  assert rows and json.loads(json.dumps(rows, default=str))
  figure = {"frames": "looped_fps", "steps": "step_ms"}.get(section)
  assert figure is None or rows[0][figure] > 0


ROWS = [
  {
    "section": "frames",
    "renderer": "tiles",
    "width": 768,
    "height": 512,
    "num_gaussians": 10_000,
    "looped_fps": 4e3,
  },
  {
    "section": "frames",
    "renderer": "warp",
    "width": 768,
    "height": 512,
    "num_gaussians": 10_000,
    "looped_fps": 9e3,
  },
  {"section": "steps", "renderer": "warp", "num_gaussians": 10_000, "step_ms": 0.7},
]


def test_a_section_that_fails_is_said_and_the_next_begins(tmp_path, monkeypatch, capsys):
  began = []

  def child(command, environment, seconds):
    del environment, seconds
    name = command[3].removeprefix(benchmark_gpu.CHILD)
    began.append(name)
    with (tmp_path / "rows.jsonl").open("a") as file:
      file.writelines(json.dumps(row) + "\n" for row in ROWS if row["section"] == name)
    status = {"slow": None, "broken": 1}.get(name, 0)
    return status, "Traceback\n\nCUDA_ERROR_ILLEGAL_ADDRESS"

  monkeypatch.setattr(benchmark_gpu, "ended", child)
  arguments = argparse.Namespace(out_dir=str(tmp_path), wheels="wheels", small=True, minutes=1.0)
  sections = {name: gpu_sections.Section(None, 30) for name in ("broken", "slow", "frames", "steps")}
  assert benchmark_gpu.run(arguments, tmp_path, sections) == 1
  assert began == ["broken", "slow", "frames", "steps"]
  table = (tmp_path / "table.txt").read_text()
  assert (
    "broken: status 1: Traceback | CUDA_ERROR_ILLEGAL_ADDRESS" in table and "slow: took more than 30 s" in table
  )
  found = {name: (best, how) for name, _, best, how in benchmark_gpu.verdicts(ROWS)}
  assert found["render, N = 10,000, frames a second"] == ("9000", "warp: met")
  assert found["a step of the default fit, ms"] == ("0.7", "warp: missed")
  assert found["render, 2048 x 2048, N = 100,000"] == ("-", "not measured")
  with Image.open(tmp_path / "frames.png") as bars:
    assert bars.size[1] > 26 * 2
  assert "results in" in capsys.readouterr().out
  arguments.minutes = 0.1
  assert benchmark_gpu.run(arguments, tmp_path, sections) == 1 and len(began) == 4


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are looked up as on Linux")
def test_a_process_is_ended_with_all_it_started(tmp_path):
  """A section's own processes would keep the GPU."""
  number = tmp_path / "number"
  command = ["sh", "-c", f"sleep 600 & echo $! > {number}; wait"]
  assert benchmark_gpu.ended(command, dict(os.environ), 2.0) == (None, "")
  left = Path("/proc", number.read_text().strip(), "cmdline")
  for _ in range(200):  # dying takes a moment
    if not left.exists() or not left.read_text():  # or dead, and nobody has taken note of it
      break
    time.sleep(0.05)
  else:
    raise AssertionError("it lives on")
  assert benchmark_gpu.ended(["sh", "-c", "echo no >&2; exit 3"], dict(os.environ), 60) == (3, "no\n")


def test_where_there_is_no_lazy_loader_names_are_found_all_the_same():
  found, names, public = benchmark_gpu.attach_stub("gaussjax", gaussjax.__file__)
  assert set(names()) == set(public) == set(gaussjax.__all__)
  assert all(found(name) is getattr(gaussjax, name) for name in public)
  with pytest.raises(AttributeError):
    found("nothing")
