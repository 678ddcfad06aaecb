from . import (
  contrib as contrib,
  errors as errors,
  files as files,
  fitting as fitting,
  geometry as geometry,
  gjx as gjx,
  image_io as image_io,
  numerics as numerics,
  quality as quality,
  rendering as rendering,
  report as report,
  startup as startup,
  types as types,
)
from .contrib.passes import Pass as Pass, fit_passes as fit_passes
from .errors import FitError as FitError, FormatError as FormatError
from .fitting.checkpoints import Checkpoint as Checkpoint
from .fitting.recipes import Recipe as Recipe, fit as fit
from .gjx.imageio_plugin import read as read, register_imageio as register_imageio, write as write
from .gjx.search import decode as decode, encode as encode
from .gjx.store import load as load, save as save
from .image_io import read_image as read_image, write_image as write_image
from .rendering.renderer import render as render
from .types import (
  Canvas as Canvas,
  Cholesky as Cholesky,
  Euler as Euler,
  FitResult as FitResult,
  Gaussians as Gaussians,
  LogCholesky as LogCholesky,
  Stop as Stop,
)
