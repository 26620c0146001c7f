"""The gradient noise scale: during training, exactly, and the critical batch size from branched training.

B_simple = tr Σ / ‖G‖² (McCandlish et al. 2018, 1812.06162, §2.2, equation 2.9), in examples. G is the gradient of the
mean loss over the n training examples and Σ the covariance of one example's gradient, with n − 1 in its denominator.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from jax.tree_util import Partial

from bsgap import analysis
from bsgap.scaling import Estimate

Z = 1.96  # standard errors in half a 95 % interval
WHOLE_BATCH = 1000  # examples of the whole gradient at a time
REACH = 100  # `branched` looks this factor below the smallest and above the largest batch size
UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def from_parts(
    count_P: jax.Array, square_P: jax.Array, square: jax.Array, n: int | jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Unbiased estimates of ‖G‖² and tr Σ from one batch whose gradient was computed in P parts. Traceable.

    `count_P` examples are in each part (0 is allowed), `square_P` is ‖g_p‖² of each part's mean gradient (whatever it
    is where a part is empty), `square` is ‖ḡ‖² of the batch's mean gradient. The B = Σ count examples are a random
    sample of the n training examples, without replacement, in random order.

    Analysis of variance between the K parts that are not empty: tr Σ̂ = (Σ count_p ‖g_p‖² − B ‖ḡ‖²) / (K − 1), and
    ‖G‖²̂ = ‖ḡ‖² − tr Σ̂ (1/B − 1/n). For two equal parts and n → ∞ these are the estimators of McCandlish et al. 2018
    (1812.06162), appendix A.1. ‖G‖²̂ can be negative: average each over updates before dividing (`ratio`).

    Returns:
      ‖G‖²̂, tr Σ̂ and 1, float32 scalars; three zeros where fewer than two parts have examples.
    """
    count_P = jnp.asarray(count_P, jnp.float32)
    filled_P = count_P > 0
    number, examples = filled_P.sum(), count_P.sum()
    measured = number > 1
    between = jnp.where(filled_P, count_P * square_P, 0).sum() - examples * square
    variance = between / jnp.maximum(number - 1, 1)
    gradient_square = square - variance * (1 / jnp.maximum(examples, 1) - 1 / n)
    return (
        jnp.where(measured, gradient_square, 0),
        jnp.where(measured, variance, 0),
        measured.astype(jnp.float32),
    )


def ratio(
    gradient_square_P: np.ndarray, gradient_variance_P: np.ndarray, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """B_simple from P independent measurements of ‖G‖² and tr Σ, such as the rows or the seeds of a run.

    The mean of tr Σ over the mean of ‖G‖²: each is averaged before dividing, else the quotient is biased (McCandlish
    et al. 2018, appendix A.1). The interval is the 95 % percentile interval of a bootstrap over the measurements. A
    mean of ‖G‖² that is not positive gives inf, for the value or for a bound; a mean of tr Σ below 0 counts as 0. One
    measurement sets no bounds (0, inf); none gives NaN.
    """
    square_P, variance_P = np.asarray(gradient_square_P, float), np.asarray(gradient_variance_P, float)
    number = len(square_P)
    if not number:
        return UNKNOWN
    value = float(_over(variance_P.mean(), square_P.mean()))
    if number == 1:
        return Estimate(value, 0, math.inf)
    index_RxP = np.random.default_rng(seed).integers(number, size=(resamples, number))
    value_R = _over(variance_P[index_RxP].mean(1), square_P[index_RxP].mean(1))
    # A quantile between a finite and an infinite value would be NaN.
    low, high = np.quantile(value_R, (0.025, 0.975), method='inverted_cdf')
    return Estimate(value, float(low), float(high))


def _over(variance: np.ndarray, square: np.ndarray) -> np.ndarray:
    bounded = np.maximum(variance, 0)
    return np.divide(bounded, square, out=np.full_like(bounded, math.inf), where=square > 0)


class Exact(NamedTuple):
    """What `exact` finds: B_simple in examples, ‖G‖² and tr Σ."""

    noise_scale: Estimate
    gradient_square: float
    gradient_variance: float


def exact(loss_of: Partial, params: Any, order_N: np.ndarray, sample: int, chunk: int) -> Exact:
    """B_simple from the gradient over all n training examples and the gradients of M examples, one by one.

    `loss_of(params, index_B)` is the mean loss of the examples `index_B`, a float32 scalar, differentiated in reverse
    mode and compiled as in `bsgap.landscape`. `order_N` (int32) are all n examples, in random order where M, the first
    `sample` of them, are not all. `chunk` single gradients are held at a time.

    tr Σ = n/(n − 1) (mean_i ‖g_i‖² − ‖G‖²), with the mean over the M examples: unbiased, and exact where M = n. The
    interval is the central limit theorem's for mean_i ‖g_i‖² with the correction 1 − M/n for a finite population, on a
    logarithmic scale, as squared norms are skewed. Where ‖G‖² is 0 the noise scale is inf. NaN for fewer than two
    examples, or where all their gradients are 0.
    """
    n, sampled = len(order_N), min(sample, len(order_N))
    grads = jax.tree.map(jnp.zeros_like, params)
    # Loops on the host: in one on the device, XLA's CPU backend makes convolutions some 10 times slower.
    for index_B in np.array_split(order_N, -(-n // WHOLE_BATCH)):
        grads = _add_gradient(loss_of, params, index_B, len(index_B) / n, grads)
    square = float(optax.tree.norm(grads, squared=True))
    chunks = [order_N[:sampled][m : m + chunk] for m in range(0, sampled, chunk)]
    square_M = np.concatenate([_example_squares(loss_of, params, index_B) for index_B in chunks], dtype=float)
    mean = square_M.mean()
    if sampled < 2 or not mean > 0:
        return Exact(UNKNOWN, square, math.nan)
    standard_error = square_M.std(ddof=1) * math.sqrt((1 - sampled / n) / sampled)
    mean_3 = mean * np.exp(np.array([0, -Z, Z]) * standard_error / mean)
    variance_3 = n / (n - 1) * (mean_3 - square)
    return Exact(Estimate(*_over(variance_3, np.full(3, square)).tolist()), square, float(variance_3[0]))


@jax.jit
def _add_gradient(loss_of: Partial, params: Any, index_B: jax.Array, weight: Any, grads: Any) -> Any:
    return jax.tree.map(lambda total, grad: total + weight * grad, grads, jax.grad(loss_of)(params, index_B))


@jax.jit
def _example_squares(loss_of: Partial, params: Any, index_B: jax.Array) -> jax.Array:
    def square(index: jax.Array) -> jax.Array:
        return optax.tree.norm(jax.grad(loss_of)(params, index[None]), squared=True)

    return jax.vmap(square)(index_B)


def branched(batch_size_K: Sequence[float] | np.ndarray, progress_K: Sequence[float] | np.ndarray) -> float:
    """The local critical batch size, in examples, from branches that leave one checkpoint. NaN for fewer than three.

    Each branch takes the same number of examples at its own batch size B, at an ε tuned for it. `progress_K` is the
    loss at the checkpoint less the loss at each branch's end. By McCandlish et al. 2018 (1812.06162), §2.2, the best
    progress of an update is ∝ 1/(1 + B_crit/B), so that of an example is ∝ 1/(B + B_crit): at B_crit half that of the
    smallest batches. The estimate is the least-squares fit of log progress = c − log(B + B_crit). Branches from a
    checkpoint are the idea of Merrill et al. 2025 (2505.23971), who instead take the largest batch size whose loss
    stays within a tolerance.

    A branch without progress has no logarithm and is left out, and at large B that makes the estimate too large, if
    anything. 0 where progress falls like 1/B or faster from the smallest batch on; inf where it does not fall.
    """
    size_K, gain_K = np.asarray(batch_size_K, float), np.asarray(progress_K, float)
    used_K = gain_K > 0
    if used_K.sum() < 3:
        return math.nan
    size_K, log_gain_K = size_K[used_K], np.log(gain_K[used_K])

    def misfit(log_critical: float) -> float:
        return float(np.var(log_gain_K + np.log(size_K + math.exp(log_critical))))

    # The misfit is flat far from the batch sizes, where a search by itself can get lost.
    grid = np.linspace(math.log(size_K.min() / REACH), math.log(size_K.max() * REACH), 200)
    best = int(np.argmin([misfit(point) for point in grid]))
    if best in (0, len(grid) - 1):
        return math.inf if best else 0.0
    bounds = (grid[best - 1], grid[best + 1])
    return math.exp(scipy.optimize.minimize_scalar(misfit, bounds=bounds, method='bounded').x)


def branched_interval(values: Sequence[float]) -> Estimate:
    """The geometric mean of the seeds' `branched`, with Student's t interval of the logarithms.

    NaN are left out; nothing else gives NaN. Where one is 0 or inf: their median, without bounds (0, inf), which a
    single value does not set either.
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return UNKNOWN
    if len(known) < 2 or not all(0 < value < math.inf for value in known):
        return Estimate(float(np.median(known)), 0, math.inf)
    found = analysis.interval(np.log(known))
    return Estimate(*(math.exp(bound) for bound in (found.mean, found.low, found.high)))
