"""What the gradient noise scale is estimated from while training."""

import jax
import jax.numpy as jnp


def from_parts(
    count_P: jax.Array, square_P: jax.Array, square: jax.Array, n: int | jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Unbiased estimates of ‖G‖² and tr Σ from one batch whose gradient was computed in P parts. Traceable.

    `count_P` examples are in each part (0 is allowed), `square_P` is ‖g_p‖² of each part's mean gradient, `square` is
    ‖ḡ‖² of the batch's. The B = Σ count examples are a random sample, without replacement, of the n training examples.

    Analysis of variance between the K parts that are not empty: tr Σ̂ = (Σ count_p ‖g_p‖² − B ‖ḡ‖²) / (K − 1), and
    ‖G‖²̂ = ‖ḡ‖² − tr Σ̂ (1/B − 1/n). For two equal parts and n → ∞ these are the estimators of McCandlish et al. 2018
    (1812.06162), appendix A.1. ‖G‖²̂ can be negative: average each over updates before dividing.

    Returns ‖G‖²̂, tr Σ̂ and 1, float32 scalars; three zeros where fewer than two parts have examples.
    """
    count_P = jnp.asarray(count_P, jnp.float32)
    filled_P = count_P > 0
    number, examples = filled_P.sum(), count_P.sum()
    measured = number > 1
    between = jnp.where(filled_P, count_P * square_P, 0).sum() - examples * square
    variance = between / jnp.maximum(number - 1, 1)
    gradient_square = square - variance * (1 / jnp.maximum(examples, 1) - 1 / n)
    return jnp.where(measured, gradient_square, 0), jnp.where(measured, variance, 0), measured.astype(jnp.float32)
