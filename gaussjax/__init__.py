"""Images as sets of 2D Gaussians, in JAX: fit, render, save, load. __init__.pyi lists the public names."""

import lazy_loader

# Names load on first use, so that a program's --help need not import jax.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
