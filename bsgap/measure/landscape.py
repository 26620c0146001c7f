"""The loss around given weights: sharpness, curvature, the line between two solutions, gradient norms.

Weights are any pytree of float32 arrays, called `params`. Functions of them, differentiated in reverse mode only, are
given as `jax.tree_util.Partial(function, *arrays)`: the arrays are arguments of the program, which is compiled once for
all that share `function` and the arrays' shapes. A loss over a split in parts wants `jax.checkpoint` around the part;
its gradient otherwise keeps the activations of all examples.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy  # which loads scipy.optimize when it is used
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial


def sharpness(loss: Partial, params: Any, box: float, iterations: int = 10) -> float:
    """100 (max f(x + y) − f(x)) / (1 + f(x)) over the box |y_i| ≤ `box` (|x_i| + 1).

    Keskar et al. 2017 (1609.04836), equations (3) and (4) with A = I. As there, the maximum is what `iterations` of
    L-BFGS-B find from y = 0, here of f over a scale at which the first step, −slope, reaches the box's sides: with f
    itself the steps can be so short that nothing is found where f curves upwards (0.0025 instead of 5.7 after training
    a 784-256-256-10 MLP by Adam). Where the gradient is exactly 0 they start at a random point, always the same.

    `loss(params)` is f, a float32 scalar. The answer is in percent, never negative, and NaN where f(x) is not finite.
    The host keeps some 45 float64 a parameter meanwhile.
    """

    value_and_slope = _for_scipy(loss, params)
    half_P = box * (np.abs(np.asarray(ravel_pytree(params)[0], np.float64)) + 1)
    start_P = np.zeros_like(half_P)
    value, slope_P = value_and_slope(start_P)
    if not math.isfinite(value):
        return math.nan
    if not slope_P.any():
        start_P = np.random.default_rng(0).uniform(-half_P, half_P)
        slope_P = value_and_slope(start_P)[1]
    # A slope of a millionth of the typical one still reaches its side.
    scale = 1e-6 * float(np.linalg.norm(slope_P) / np.linalg.norm(half_P)) or 1.0

    def descent(y_P: np.ndarray) -> tuple[float, np.ndarray]:
        there, slope_P = value_and_slope(y_P)
        return (value - there) / scale, slope_P / -scale

    bounds = scipy.optimize.Bounds(-half_P, half_P)
    # A slope counts to SciPy at most as its distance to the side, and that is below any `gtol` in a small box.
    options = {'maxiter': iterations, 'gtol': 0}
    found = scipy.optimize.minimize(descent, start_P, method='L-BFGS-B', jac=True, bounds=bounds, options=options)
    return 100 * max(-scale * float(found.fun), 0.0) / (1 + value)


def lowest(loss: Partial, params: Any, iterations: int = 500) -> float:
    """The lowest loss that `iterations` of L-BFGS-B find from `params`: of a convex loss nearly its minimum."""
    start_P = np.zeros(sum(leaf.size for leaf in jax.tree.leaves(params)))
    options = {'maxiter': iterations, 'gtol': 0, 'ftol': 0}
    descent = _for_scipy(loss, params)
    return float(scipy.optimize.minimize(descent, start_P, method='L-BFGS-B', jac=True, options=options).fun)


def _for_scipy(loss: Partial, params: Any) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """The loss at `params` plus a vector, and its slope there."""

    def value_and_slope(y_P: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope_P = _value_and_slope(loss, params, y_P.astype(np.float32))
        return float(value), np.asarray(slope_P, np.float64)

    return value_and_slope


@jax.jit
def _value_and_slope(loss: Partial, params: Any, y_P: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_P, unravel = ravel_pytree(params)
    return jax.value_and_grad(lambda y_P: loss(unravel(x_P + y_P)))(y_P)


@jax.jit
def top_eigenvalue(
    loss: Partial, params: Any, key: jax.Array, iterations: int = 50, tolerance: float = 1e-3
) -> jax.Array:
    """The eigenvalue of the loss's Hessian that is largest in magnitude, with its sign.

    Power iteration on Hessian-vector products, as in PyHessian (Yao et al. 2020, 1912.07145), from a random direction
    made from `key`. It stops when the Rayleigh quotient vᵀHv changes by at most `tolerance` of itself, or after
    `iterations`; both can be short of the eigenvalue where the next one is nearly as large. NaN where the Hessian is.
    """
    x_P, unravel = ravel_pytree(params)

    def slope(x_P: jax.Array) -> jax.Array:
        return jax.grad(lambda x_P: loss(unravel(x_P)))(x_P)

    def unsettled(state: tuple[Any, ...]) -> jax.Array:
        i, _, value, before = state
        return (i < iterations) & (jnp.abs(value - before) > tolerance * jnp.abs(value))

    def iterate(state: tuple[Any, ...]) -> tuple[Any, ...]:
        i, v_P, before, _ = state
        product_P = jax.grad(lambda x_P: jnp.vdot(slope(x_P), v_P))(x_P)
        return i + 1, product_P / jnp.linalg.norm(product_P), jnp.vdot(v_P, product_P), before

    v_P = jax.random.normal(key, x_P.shape, x_P.dtype)
    start = (jnp.int32(0), v_P / jnp.linalg.norm(v_P), jnp.float32(0), jnp.float32(jnp.inf))
    return jax.lax.while_loop(unsettled, iterate, start)[2]


@jax.jit
def line(function: Partial, first: Any, second: Any, alpha_A: jax.Array) -> Any:
    """`function` at α `second` + (1 − α) `first` for each α, one after the other in one program.

    Keskar et al. 2017 (1609.04836), §2.2.1: `first` is their small-batch and `second` their large-batch solution, and α
    goes from −1 to 2. Returns what `function(params)` returns, a pytree of scalars, with a leading axis over α.
    """

    def at(alpha: jax.Array) -> Any:
        return function(jax.tree.map(lambda a, b: alpha * b + (1 - alpha) * a, first, second))

    return jax.lax.map(at, alpha_A)


@functools.partial(jax.jit, static_argnames=('batch_size', 'select'))
def gradient_norms(
    loss_of: Partial,
    params: Any,
    order_N: jax.Array,
    batch_size: int,
    learning_rate: float = 0.0,
    select: Callable[[Any], Any] = lambda grads: grads,
) -> tuple[jax.Array, jax.Array]:
    """The Euclidean norms of the gradients of consecutive batches of the examples `order_N` (int32), `norm_U` float32,
    and that of their mean, float32.

    `loss_of(params, index_B)` is the mean loss of the examples `index_B`. All U = N // `batch_size` batches are full;
    what is left of the examples is not used. ValueError if there is none. The norm is over the leaves of
    `select(grads)`, a function of module level for one compilation. The weights stay as they are, or take a step of
    plain SGD after each batch if there is a `learning_rate`. Shen 2018 has the norm of the mean, of the last layer, of
    weights that move.
    """
    if not 1 <= batch_size <= len(order_N):
        raise ValueError(f'no batch of {batch_size} in {len(order_N)} examples')

    updates = len(order_N) // batch_size

    def update(state: Any, index_B: jax.Array) -> tuple[Any, jax.Array]:
        params, mean = state
        grads = jax.grad(loss_of)(params, index_B)
        mean = jax.tree.map(lambda m, g: m + g / updates, mean, selected := select(grads))
        return (jax.tree.map(lambda w, g: w - learning_rate * g, params, grads), mean), optax.tree.norm(selected)

    start = params, jax.tree.map(jnp.zeros_like, select(params))
    (_, mean), norm_U = jax.lax.scan(update, start, order_N[: updates * batch_size].reshape(updates, batch_size))
    return norm_U, optax.tree.norm(mean)
