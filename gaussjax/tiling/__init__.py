"""The fast renderer: neighbour lists over tiles (lists.py), and sums over them as matrix products (sums.py)."""

from gaussjax.tiling.lists import (
  BLOCK as BLOCK,
  TILE as TILE,
  Neighbors as Neighbors,
  TileLists as TileLists,
  allocate as allocate,
  capacity as capacity,
  drift as drift,
  empty as empty,
  expected_pairs as expected_pairs,
  overflowed as overflowed,
  refresh as refresh,
  update as update,
)
from gaussjax.tiling.sums import (
  composite as composite,
  splat as splat,
  splat_adjoint as splat_adjoint,
  splat_jvp as splat_jvp,
  tiled as tiled,
)
