"""Reverse-mode gradients against finite differences in float64, and proof that the check can fail."""

import jax
import jax.numpy as jnp
import pytest
from scenes import BLENDS, PARAMETERIZATIONS

import gaussjax
from experiments.stages.plain_fit import check_gradients


@pytest.mark.parametrize("parameterize", PARAMETERIZATIONS)
@pytest.mark.parametrize("blend", BLENDS)
def test_every_field(x64, parameterize, blend):
  del x64
  assert check_gradients(parameterize, blend) == (6 if parameterize is PARAMETERIZATIONS[0] else 7)


def test_a_theta_gradient_wrong_by_one_percent_is_caught(x64):
  del x64

  @jax.custom_vjp
  def distort(thetas):
    return thetas

  distort.defvjp(lambda thetas: (thetas, None), lambda _, cotangent: (1.01 * cotangent,))

  def wrong_render(gaussians):
    return gaussjax.render(
      gaussians._replace(shape=gaussians.shape._replace(thetas=distort(gaussians.shape.thetas)))
    )

  with pytest.raises(AssertionError):
    check_gradients(PARAMETERIZATIONS[0], BLENDS[0], render=wrong_render)
  assert jnp.float64 == jnp.zeros(()).dtype
