"""`gaussjax doctor`: what there is on this machine, and whether its numbers can be trusted."""

import argparse
import os
from typing import Any

from gaussjax.cli.streams import or_why, say


def run_doctor(arguments: argparse.Namespace) -> None:
  """Whatever is broken is told of in its place."""
  from gaussjax import startup

  flags = os.environ.get("XLA_FLAGS", "").strip()
  refused = startup.refused_flags()
  if refused:
    del os.environ["XLA_FLAGS"]  # XLA would end the process
  startup.prepare_jax()
  folder = startup.cache_folder()

  def environment() -> dict[str, str]:
    from gaussjax import report

    return report.environment()

  def devices() -> str:
    import jax

    startup.check_devices()
    return ", ".join(map(str, jax.devices()))

  def trials() -> dict[str, str]:
    from gaussjax.rendering import trial

    return trial.summary()

  def programs() -> list[int]:
    return [file.stat().st_size for file in os.scandir(folder)] if folder and folder.is_dir() else []

  figures: dict[str, Any] = {**startup.versions(), "devices": or_why(devices)}
  found = or_why(environment)
  figures |= found if isinstance(found, dict) else {}
  found = or_why(trials)
  figures |= found if isinstance(found, dict) else {"numbers": found}
  figures["XLA_FLAGS"] = f"broken: {refused}" if refused else os.environ.get("XLA_FLAGS", flags).strip()
  figures["cache"] = str(folder) if folder else "none: there is no home folder"
  sizes = or_why(programs)
  figures |= (
    {"cached programs": len(sizes), "cached bytes": sum(sizes)}
    if isinstance(sizes, list)
    else {"cached programs": sizes}
  )
  say(arguments, figures)
