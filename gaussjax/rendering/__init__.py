"""Pixels: the kernel, the blends, the dense renderer and the fast one over tiles, and the choice between them."""
