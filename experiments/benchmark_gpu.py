"""All figures of a GPU by one command, in under eight minutes, on a machine that has nothing but JAX.

Runs from a checkout without network, with Python 3.11 or later, JAX for CUDA, optax, chex, imageio, pillow and
absl-py. Wheels in the folder --wheels (lazy_loader, warp-lang) are unpacked and used; without lazy_loader a few
lines stand in for it. Each section is a process of its own: what fails or takes too long is said, and the next
begins.

Leaves rows.jsonl (a row a line, as they come), table.txt, and pictures in --out_dir.
"""

import ast
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHILD = "--section="

# (name, section, what its row has, figure, bound, whether at least that), for 768 x 512 unless said
GOALS: tuple[tuple[str, str, dict[str, Any], str, float, bool], ...] = (
  ("render, N = 10,000, frames a second", "frames", {"num_gaussians": 10_000}, "looped_fps", 5000, True),
  ("render, 2048 x 2048, N = 100,000", "frames", {"num_gaussians": 100_000}, "looped_fps", 1000, True),
  ("a step of the default fit, ms", "steps", {"num_gaussians": 10_000}, "step_ms", 0.6, False),
  ("a fit, N = 10,000, seconds", "fit", {"compiled_before": True}, "seconds", 2, False),
  ("a fit, N = 50,000, seconds to 46 dB", "large_fit", {}, "seconds_to_46_db", 5, False),
  ("12 megapixels at 0.2 bpp, seconds, no compilation", "large_encode", {}, "seconds", 20, False),
  ("64 pictures of 256 x 256, ms a picture", "stack", {"compiled_before": True}, "ms_an_image", 100, False),
)


def attach_stub(package: str, file: str) -> tuple:
  """(__getattr__, __dir__, __all__) of a package whose names are those that the stub beside its file imports."""
  names = dict[str, tuple[str | None, str]]()
  for node in ast.walk(ast.parse(Path(file).with_suffix(".pyi").read_text())):
    if isinstance(node, ast.ImportFrom):
      names |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}

  def found(name: str) -> Any:
    if name not in names:
      raise AttributeError(name)
    module = importlib.import_module(f"{package}.{names[name][0]}" if names[name][0] else package)
    if hasattr(module, names[name][1]):
      return getattr(module, names[name][1])
    return importlib.import_module(f"{module.__name__}.{names[name][1]}")

  return found, lambda: sorted(names), sorted(names)


def prepare(wheels: Path, unpacked: Path) -> None:
  """What this machine lacks, from wheels or by a few lines."""
  for wheel in sorted(wheels.glob("*.whl")) if wheels.is_dir() else []:
    if not (unpacked / wheel.stem).is_dir():
      half = unpacked / f"{wheel.stem}.half"
      with zipfile.ZipFile(wheel) as file:
        file.extractall(half)
      half.rename(unpacked / wheel.stem)
    sys.path.append(str(unpacked / wheel.stem))
  if importlib.util.find_spec("lazy_loader") is None:
    stand_in = types.ModuleType("lazy_loader")
    stand_in.attach_stub = attach_stub  # type: ignore[attr-defined]
    sys.modules["lazy_loader"] = stand_in


def child(name: str, out_dir: Path, is_small: bool) -> int:
  """Measures one section here; a row that is found is written at once. The exit status."""
  from gaussjax import startup

  startup.prepare_jax()
  from experiments import gpu_sections

  if is_small:
    gpu_sections.rehearse()
  sizes = (gpu_sections.small if is_small else gpu_sections.full)(out_dir)
  for row in gpu_sections.SECTIONS[name].measure(sizes):
    with (out_dir / "rows.jsonl").open("a") as file:
      file.write(json.dumps({"section": name, **row}, default=str) + "\n")
  return 0


def start(name: str, arguments: Any, environment: dict[str, str], seconds: float) -> str | None:
  """Runs a section's process. What went wrong with it, or None."""
  command = [sys.executable, "-m", "experiments.benchmark_gpu", f"{CHILD}{name}", f"--out_dir={arguments.out_dir}"]
  command += [f"--wheels={arguments.wheels}"] + ["--small"] * arguments.small
  surroundings = os.environ | {
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    # One process after the other, but what one has taken the next could not have at once.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "JAX_COMPILATION_CACHE_DIR": str(Path(arguments.out_dir).resolve() / "programs"),
  }
  status, said = ended(command, surroundings | environment, seconds)
  if status is None:
    return f"took more than {seconds:.0f} s"
  lines = [line for line in said.strip().splitlines() if line.strip()]
  return f"status {status}: {' | '.join(lines[-3:])[-600:]}" if status else None


def ended(command: list[str], environment: dict[str, str], seconds: float) -> tuple[int | None, str]:
  """(exit status, stderr) of a command that ends with all that it began; None where it took too long."""
  quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
  with subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True, **quiet) as process:
    try:
      _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
      return None, ""
    finally:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
  return process.returncode, said


def rows_of(path: Path) -> list[dict]:
  """The rows so far."""
  return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def said(row: dict) -> str:
  """A row as a line."""
  short = lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)
  plain = {key: value for key, value in row.items() if key not in ("section", "curve", "all_ms")}
  return "  ".join(f"{key}={short(value)}" for key, value in plain.items())


def verdicts(rows: list[dict]) -> list[tuple[str, str, str, str]]:
  """(goal, what is required, best of what was measured, by whom or what became of it)."""
  found = []
  for name, section, wanted, figure, bound, at_least in GOALS:
    own = [row for row in rows if row["section"] == section and wanted.items() <= row.items()]
    values = [(row[figure], row.get("renderer", "")) for row in own if row.get(figure) is not None]
    best = (max if at_least else min)(values, default=None)
    required = f"{'at least' if at_least else 'at most'} {bound:g}"
    if best is None:
      found.append((name, required, "-", "not measured"))
    else:
      met = best[0] >= bound if at_least else best[0] <= bound
      found.append((name, required, f"{best[0]:.4g}", f"{best[1]}: {'met' if met else 'missed'}"))
  return found


def table(rows: list[dict], failures: dict[str, str]) -> str:
  """All of it, to be read."""
  parts = []
  for name in dict.fromkeys(row["section"] for row in rows):
    parts.append(f"{name}\n" + "\n".join(f"  {said(row)}" for row in rows if row["section"] == name))
  width = max(len(goal[0]) for goal in GOALS)
  goals = [f"  {name:<{width}}  {required:<14}  {best:<8}  {how}" for name, required, best, how in verdicts(rows)]
  parts.append("goals (an H100 or H200)\n" + "\n".join(goals))
  if failures:
    parts.append("what failed\n" + "\n".join(f"  {name}: {why}" for name, why in failures.items()))
  return "\n\n".join(parts) + "\n"


def picture(rows: list[dict], path: Path) -> None:
  """Frames a second as bars, logarithmic, the goal beside them; drawn without matplotlib."""
  import math

  from PIL import Image, ImageDraw

  bars = [row for row in rows if row["section"] == "frames"]
  image = Image.new("RGB", (760, 40 + 26 * max(1, len(bars))), "white")
  pen, scale = ImageDraw.Draw(image), lambda fps: 250 + 80 * math.log10(max(fps, 1))
  for index, row in enumerate(bars):
    top = 30 + 26 * index
    pen.text((8, top), f"{row['renderer']} {row['width']} x {row['height']} N={row['num_gaussians']}", "black")
    pen.rectangle((250, top, scale(row["looped_fps"]), top + 16), fill=(70, 130, 180))
    pen.text((scale(row["looped_fps"]) + 6, top), f"{row['looped_fps']:.0f}", "black")
  for fps in (100, 1000, 5000, 20_000):
    pen.line((scale(fps), 20, scale(fps), image.height), fill=(200, 80, 60))
    pen.text((scale(fps) - 12, 6), f"{fps}", (200, 80, 60))
  image.save(path)


def main(argv: list[str]) -> int:
  """Parses the flags, by hand of the standard library, since absl may be what this machine lacks."""
  import argparse

  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--out_dir", default="out/gpu", help="where results go")
  parser.add_argument("--wheels", default=str(ROOT / "wheels"), help="a folder of wheels to be unpacked")
  parser.add_argument("--small", action="store_true", help="small sizes: a rehearsal, on a CPU too")
  parser.add_argument("--minutes", type=float, default=8.0, help="after which no section begins or goes on")
  parser.add_argument("--sections", help="names, with commas; without it all")
  parser.add_argument("--section", help=argparse.SUPPRESS)
  arguments = parser.parse_args(argv)
  out_dir = Path(arguments.out_dir).resolve()
  out_dir.mkdir(parents=True, exist_ok=True)
  arguments.out_dir, arguments.wheels = str(out_dir), str(Path(arguments.wheels).resolve())
  prepare(Path(arguments.wheels), out_dir / "unpacked")
  if arguments.section:
    return child(arguments.section, out_dir, arguments.small)
  from experiments import gpu_sections

  chosen = arguments.sections.split(",") if arguments.sections else list(gpu_sections.SECTIONS)
  if unknown := set(chosen) - set(gpu_sections.SECTIONS):
    parser.error(f"got the sections {', '.join(sorted(unknown))}, expected {', '.join(gpu_sections.SECTIONS)}")
  return run(arguments, out_dir, {name: gpu_sections.SECTIONS[name] for name in chosen})


def run(arguments: Any, out_dir: Path, sections: dict) -> int:
  """All sections, one after the other. 0 if there are rows of each, else 1."""
  (out_dir / "rows.jsonl").unlink(missing_ok=True)
  began, failures = time.monotonic(), dict[str, str]()
  for name, section in sections.items():
    left, before = 60 * arguments.minutes - (time.monotonic() - began), len(rows_of(out_dir / "rows.jsonl"))
    why = (
      "left out: no time" if left < 15 else start(name, arguments, section.environment, min(left, section.seconds))
    )
    rows = rows_of(out_dir / "rows.jsonl")
    print(f"== {name}, {time.monotonic() - began:.0f} s after the beginning", flush=True)
    print("".join(f"  {said(row)}\n" for row in rows[before:]), end="", flush=True)
    if why:
      failures[name] = why
      print(f"  {name}: {why}", flush=True)
    (out_dir / "table.txt").write_text(table(rows, failures))
  rows = rows_of(out_dir / "rows.jsonl")
  picture(rows, out_dir / "frames.png")
  print(table([row for row in rows if row["section"] == "about"], failures))
  print(f"results in {out_dir}")
  return int(bool(failures))


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
