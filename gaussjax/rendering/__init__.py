"""Pixels: the kernel, the blends, the renderers, and the choice between them.

A blend sees sums (blends.py over kernel.py's Rasterizer), never who makes them: scanlines.py, dense.py, or, over
the lists of tiles.py, splat.py and warp.py. renderer.py is the door, trial.py holds renderers to float64.
"""

from gaussjax.rendering.blends import (
  Blend as Blend,
  accumulated_sum as accumulated_sum,
  alpha_composite as alpha_composite,
  weighted_average as weighted_average,
)
from gaussjax.rendering.renderer import allocate as allocate, refresh as refresh, render as render
from gaussjax.rendering.tiles import Neighbors as Neighbors
