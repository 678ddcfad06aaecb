"""The process of a command: its streams, its interruption, its exit status."""

import contextlib
import io
import os
import signal
import sys
import threading
import warnings
from typing import Any, NoReturn

from gaussjax import errors
from gaussjax.cli.options import parser
from gaussjax.cli.streams import DAMAGED, INTERRUPTED, MISTAKE, drop_output, fail


def main(argv: list[str] | None = None) -> NoReturn:
  """Runs a subcommand; errors are one line on stderr."""
  _open_streams()
  if argv is None:  # a process of its own
    sys.unraisablehook = _interrupt_again
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they are for those who write programs
    status = _status(argv)
  if argv is None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done, and the way out is short
    if status == INTERRUPTED:  # Python and JAX may have noted that too, and would end otherwise
      with contextlib.suppress(OSError):
        sys.stdout.flush()
      os._exit(status)
  sys.exit(status)


def _interrupt_again(unraisable: Any) -> None:
  """An interruption that is raised in one of JAX's callbacks is lost there: so that it comes again in a moment."""
  if issubclass(unraisable.exc_type, KeyboardInterrupt):
    threading.Timer(0.02, _interrupt).start()
  else:
    sys.__unraisablehook__(unraisable)


def _open_streams() -> None:
  """Streams that are closed lead nowhere, and what a terminal cannot show is escaped."""
  for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, name) is None:
      setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")


def _interrupt() -> None:
  if hasattr(signal, "pthread_kill"):  # wakes the main thread if it waits
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
  else:
    signal.raise_signal(signal.SIGINT)


def _status(argv: list[str] | None) -> int:
  """Runs a subcommand: the exit status."""
  try:
    arguments = parser().parse_args(argv)
    arguments.run(arguments)
    sys.stdout.flush()
  except KeyboardInterrupt as interruption:
    if argv is None:
      signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
    return fail(str(interruption) or "interrupted; no file was left half written", INTERRUPTED)
  except BrokenPipeError:
    drop_output()
    return DAMAGED
  except (errors.FormatError, RuntimeError) as error:  # FitError, and what XLA says of a device
    return fail(errors.one_line(error), DAMAGED)
  except (ValueError, ImportError) as error:
    return fail(errors.one_line(error), MISTAKE)
  except OSError as error:
    if error.filename is None:  # those of files have one
      drop_output()
      return fail(f"standard input or output: {errors.one_line(error)}", MISTAKE)
    return fail(errors.one_line(error), MISTAKE)
  except MemoryError:
    return fail("out of memory", DAMAGED)
  return 0
