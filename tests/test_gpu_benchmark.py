"""What measures a GPU, rehearsed without one: its sections find rows, and none of them stops the others."""

import argparse
import json
import subprocess

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

  def child(command, **options):
    name = command[3].removeprefix(benchmark_gpu.CHILD)
    began.append(name)
    with (tmp_path / "rows.jsonl").open("a") as file:
      file.writelines(json.dumps(row) + "\n" for row in ROWS if row["section"] == name)
    if name == "slow":
      raise subprocess.TimeoutExpired(command, options["timeout"])
    return subprocess.CompletedProcess(
      command, int(name == "broken"), "", "Traceback\n\nCUDA_ERROR_ILLEGAL_ADDRESS"
    )

  monkeypatch.setattr(subprocess, "run", child)
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


def test_where_there_is_no_lazy_loader_names_are_found_all_the_same():
  found, names, public = benchmark_gpu.attach_stub("gaussjax", gaussjax.__file__)
  assert set(names()) == set(public) == set(gaussjax.__all__)
  assert all(found(name) is getattr(gaussjax, name) for name in public)
  with pytest.raises(AttributeError):
    found("nothing")
