from . import (
  checkpoints as checkpoints,
  clock as clock,
  codec as codec,
  compression as compression,
  container as container,
  density as density,
  drawing as drawing,
  entropy as entropy,
  fitting as fitting,
  geometry as geometry,
  gjx_io as gjx_io,
  guards as guards,
  image_io as image_io,
  initializers as initializers,
  losses as losses,
  lpips as lpips,
  metrics as metrics,
  optimizers as optimizers,
  passes as passes,
  quantization as quantization,
  rate as rate,
  recipes as recipes,
  rendering as rendering,
  report as report,
  resumption as resumption,
  rounding as rounding,
  similarity as similarity,
  solvers as solvers,
  startup as startup,
  tiling as tiling,
  types as types,
)
from .checkpoints import Checkpoint as Checkpoint, load as load, save as save
from .compression import decode as decode, encode as encode
from .container import FormatError as FormatError
from .drawing import render as render
from .gjx_io import read as read, register_imageio as register_imageio, write as write
from .guards import FitError as FitError
from .image_io import read_image as read_image, write_png as write_png
from .passes import Pass as Pass, fit_passes as fit_passes
from .recipes import Recipe as Recipe, fit as fit
from .types import (
  Canvas as Canvas,
  Cholesky as Cholesky,
  Euler as Euler,
  FitResult as FitResult,
  Gaussians as Gaussians,
  LogCholesky as LogCholesky,
  Stop as Stop,
)
