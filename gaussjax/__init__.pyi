from .errors import FitError as FitError, FormatError as FormatError
from .fitting import density as density, initializers as initializers, optimizers as optimizers
from .fitting.checkpoints import Checkpoint as Checkpoint
from .fitting.recipes import PRESETS as PRESETS, Recipe as Recipe, fit as fit
from .fitting.stacks import fit_stack as fit_stack
from .geometry import concatenate as concatenate, take as take, where as where
from .gjx.encoding import Effort as Effort
from .gjx.imageio_plugin import register_imageio as register_imageio
from .gjx.packing import add_grain as add_grain, decode as decode
from .gjx.pillow_plugin import register_pillow as register_pillow
from .gjx.search import encode as encode
from .gjx.store import load as load, save as save
from .image_io import read_image as read_image, write_image as write_image
from .progress import progress_bar as progress_bar
from .quality import losses as losses, metrics as metrics
from .rendering import blends as blends
from .rendering.blends import Blend as Blend
from .rendering.renderer import allocate as allocate, refresh as refresh, render as render
from .rendering.tiles import Neighbors as Neighbors
from .types import (
  Canvas as Canvas,
  Cholesky as Cholesky,
  Euler as Euler,
  FitResult as FitResult,
  Gaussians as Gaussians,
  LogCholesky as LogCholesky,
  Stop as Stop,
)

__version__: str
