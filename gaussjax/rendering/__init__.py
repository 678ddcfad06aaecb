"""Pixels: the kernel, the blends, the dense renderer and the fast one over tiles, and the choice between them.

A blend sees sums (blends.py over kernel.py's Rasterizer), never who makes them: dense.py, or splat.py over the
lists of tiles.py. renderer.py is the door.
"""

from gaussjax.rendering.blends import (
  Blend as Blend,
  accumulated_sum as accumulated_sum,
  alpha_composite as alpha_composite,
  weighted_average as weighted_average,
)
from gaussjax.rendering.renderer import allocate as allocate, refresh as refresh, render as render
from gaussjax.rendering.tiles import Neighbors as Neighbors
