"""Descent: where Gaussians start, how they are moved, and the loop that does it."""
