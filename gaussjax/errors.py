"""The errors that a caller may want to tell from others. A mistake in an argument is a plain ValueError."""


class FormatError(ValueError):
  """Bytes that are no whole file of ours within the limits; the message says what is wrong."""


class DamagedError(FormatError):
  """Coded numbers that no writer makes; a reader of files says where they were found."""


class FitError(RuntimeError):
  """A fit met numbers that it cannot go on from; the message names the step, the field and how many Gaussians."""


def one_line(error: BaseException) -> str:
  """An error in one line, for a person: its words, or its name where it has none."""
  message = str(error)
  if isinstance(error, OSError) and error.strerror:
    message = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
  return " ".join(message.split())[:1000] or type(error).__name__
