"""How good a picture is: similarity, LPIPS, losses with a gradient, metrics."""
