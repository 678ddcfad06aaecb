"""What a renderer owes to shard_map: its arrays' types say over which axes of a mesh they vary."""

from typing import Any

import jax

from gaussjax.types import Array


def varying_like(tree: Any, others: Any) -> Any:
  """The same arrays; within shard_map they vary over the axes of `others`, as loops and branches ask."""
  axes = frozenset[str]().union(*map(_varying, jax.tree.leaves(others)))
  if not axes:
    return tree
  cast = lambda leaf, more: jax.lax.pcast(leaf, tuple(more), to="varying") if more else leaf
  return jax.tree.map(lambda leaf: cast(leaf, axes - _varying(leaf)), tree)


def _varying(leaf: Array) -> frozenset[str]:
  """The axes of a mesh over which an array varies within shard_map."""
  kind: Any = jax.typeof(leaf)
  return kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma  # jax 0.10, others
