from . import (
  checkpoints as checkpoints,
  density as density,
  drawing as drawing,
  fitting as fitting,
  geometry as geometry,
  guards as guards,
  image_io as image_io,
  initializers as initializers,
  losses as losses,
  metrics as metrics,
  optimizers as optimizers,
  passes as passes,
  recipes as recipes,
  rendering as rendering,
  report as report,
  similarity as similarity,
  solvers as solvers,
  tiling as tiling,
  types as types,
)
from .checkpoints import Checkpoint as Checkpoint, load as load, save as save
from .drawing import render as render
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
