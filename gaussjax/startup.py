"""What a command does to JAX before its first array and a library must not: flags, the cache of programs."""

import contextlib
import gc
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

# What XLA is told, with the first version of jaxlib that was seen to know it and the first that was not: XLA ends a
# process with flags that it does not know, so a jaxlib that nobody has tried gets none.
#   XLA uses half of AVX-512's width unless told; the renderer's forward pass takes 1.6 times as long without.
#   XLA's newer way to compile loops takes half as long again for a whole encoding's programs, which run no faster.
FLAGS = (
  ("--xla_cpu_prefer_vector_width=512", (0, 10), (0, 13)),
  ("--xla_cpu_use_fusion_emitters=false", (0, 10), (0, 11)),
)

# Linux gives a process 65,530 mappings of memory unless told, and one that has used them up crashes. A compiled
# program takes up to forty, and half a megabyte for each: memory runs out before the mappings do. An encoding
# compiles up to a hundred programs.
MOST_MAPPINGS = 10_000

# Python looks for cycles whenever there are so many new objects more, of which tracing makes millions: with 700, as
# it is by itself, an eighth of a command's time.
GARBAGE = (100_000, 50, 50)

PACKAGES = ("gaussjax", "jax", "jaxlib", "optax", "chex", "numpy")


def release_programs() -> None:
  """Lets go of JAX's compiled programs if this process holds very many, so that any number of sizes will do.

  `fit`, `encode` and `render` call it; what is still used compiles again, or comes from the cache on disk.
  """
  with contextlib.suppress(OSError):  # no /proc, no such limit
    if len(Path("/proc/self/maps").read_bytes().splitlines()) > MOST_MAPPINGS:
      import jax

      jax.clear_caches()


def versions() -> dict[str, str]:
  """Versions of this package, of those that its figures depend on, and of Python."""
  return {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()}


def _version(package: str) -> str:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:  # run from a folder of its source
    return "not installed"


def interface_of_xla() -> tuple[int, int]:
  """The version of the interface for foreign functions of the jaxlib that is here, from the header in it."""
  import jax

  header = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h").read_text()
  major, minor = (re.search(rf"define XLA_FFI_API_{name} (\d+)", header) for name in ("MAJOR", "MINOR"))
  if major is None or minor is None:
    raise ValueError("the header of XLA's interface has no version")
  return int(major[1]), int(minor[1])


def cache_folder() -> Path | None:
  """Where compiled programs are kept: where JAX is told to, or a folder of the user's own; None without a home."""
  if asked := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    return Path(asked)
  base = Path(os.environ.get("XDG_CACHE_HOME", ""))
  if not base.is_absolute():  # which its specification has ignored
    try:
      base = Path.home() / ".cache"
    except RuntimeError:  # a user whom the system does not know
      return None
  return base / "gaussjax" / "jax"


def prepare_jax() -> None:
  """Wide vectors on CPU, 32-bit numbers, and a private folder for compiled programs, so that a second run starts at
  once. Never raises: what cannot be had is left out, and why JAX cannot be imported is told to whoever uses it."""
  gc.set_threshold(*GARBAGE)
  flags = os.environ.get("XLA_FLAGS", "").strip()
  if not flags or flags.startswith("-"):  # else it names a file
    more = [flag for flag in our_flags() if flag.partition("=")[0] not in flags]
    os.environ["XLA_FLAGS"] = " ".join([*more, flags]).strip()
  # jaxlib calls every program it finds there built for another machine, since it compares made-up features. A 1 is
  # what importing jax sets: a child process inherits it, and is no more asked for than none.
  if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
  try:
    import jax
  except Exception:
    return
  jax.config.update("jax_enable_x64", False)  # what a file's bytes are does not depend on the environment
  folder = cache_folder()
  with contextlib.suppress(OSError, ValueError):  # a home that cannot be written to costs only the cache
    if folder is not None:
      folder.mkdir(parents=True, exist_ok=True, mode=0o700)
      with tempfile.TemporaryFile(dir=folder):  # modes do not tell of a disk that is read-only
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def our_flags() -> list[str]:
  """What XLA is told unless the user says otherwise."""
  found = re.match(r"(\d+)\.(\d+)", _version("jaxlib"))
  version = tuple(map(int, found.groups())) if found else (0, 0)
  return [flag for flag, first, after in FLAGS if first <= version < after]


def refused_flags() -> str | None:
  """What XLA has against the user's XLA_FLAGS, or None. To be asked before JAX starts.

  XLA ends the process that has an unknown flag, so another is started to see; if there are flags only.
  """
  flags = os.environ.get("XLA_FLAGS", "").strip()
  if not flags or flags == " ".join(our_flags()):
    return None
  code = "from jaxlib import xla_client; xla_client.CompileOptions()"
  try:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
  except (OSError, subprocess.SubprocessError):
    return None
  if not done.returncode:
    return None
  lines = done.stderr.strip().splitlines() or [f"XLA ended with status {done.returncode}"]
  found = [line for line in lines if "parse_flags" in line] or lines
  return f"got XLA_FLAGS={flags}, expected flags that XLA knows ({found[0].rpartition('] ')[2][:200]})"


def check_devices() -> None:
  """Starts JAX's devices. Raises ValueError, in one line, where it has none of the platform that is asked for."""
  import jax

  try:
    jax.devices()
  except Exception as error:  # RuntimeError, AssertionError
    words = (str(error).strip() or type(error).__name__).splitlines()[0]
    asked = os.environ.get("JAX_PLATFORMS", "")
    raise ValueError(f"got JAX_PLATFORMS={asked}, expected what this machine has, or nothing ({words})") from error
