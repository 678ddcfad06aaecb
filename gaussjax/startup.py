"""What a command does to JAX before its first array and a library must not: flags, the cache of programs."""

import contextlib
import os
from pathlib import Path

# XLA uses half of AVX-512's width unless told; the renderer's forward pass takes 1.6 times as long without.
WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"


# Linux gives a process 65,530 mappings of memory unless told; a compiled program takes some forty, and a process
# that has used them up crashes. An encoding compiles up to a hundred programs.
MOST_MAPPINGS = 25_000


def release_programs() -> None:
  """Lets go of JAX's compiled programs if this process holds very many, so that any number of sizes will do.

  `fit`, `encode` and `render` call it; what is still used compiles again, or comes from the cache on disk.
  """
  with contextlib.suppress(OSError):  # no /proc, no such limit
    if len(Path("/proc/self/maps").read_bytes().splitlines()) > MOST_MAPPINGS:
      import jax

      jax.clear_caches()


def cache_folder() -> Path:
  """Where compiled programs are kept: a folder of the user's own."""
  base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
  return base / "gaussjax" / "jax"


def prepare_jax() -> None:
  """Wide vectors on CPU, and a private folder for compiled programs, so that a second run starts at once."""
  os.environ["XLA_FLAGS"] = f"{WIDE_VECTORS} {os.environ.get('XLA_FLAGS', '')}"
  # jaxlib calls every program it finds there built for another machine, since it compares made-up features. A 1 is
  # what importing jax sets: a child process inherits it, and is no more asked for than none.
  if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
  import jax

  with contextlib.suppress(OSError):  # a home that cannot be written to costs only the cache
    cache_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
