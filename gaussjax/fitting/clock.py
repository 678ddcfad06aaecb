"""The one clock of the library: seconds of stepping, for limits and records."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax.monitoring


@contextlib.contextmanager
def stepping_clock() -> Iterator[Callable[[], float]]:
  """Seconds since the block began; the clock stands still while XLA compiles for this thread."""
  thread, began, compiling = threading.get_ident(), time.monotonic(), 0.0

  def listen(event: str, duration_secs: float, **_: Any) -> None:
    nonlocal compiling
    if event.endswith("backend_compile_duration") and threading.get_ident() == thread:
      compiling += duration_secs

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield lambda: time.monotonic() - began - compiling
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
