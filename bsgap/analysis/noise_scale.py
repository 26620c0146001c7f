"""The gradient noise scale from what was measured during training.

B_simple = tr Σ / ‖G‖² (McCandlish et al. 2018, 1812.06162, §2.2, equation 2.9), in examples. G is the gradient of the
mean loss over the n training examples and Σ the covariance of one example's gradient, with n − 1 in its denominator.
"""

import math

import numpy as np

from bsgap.analysis.statistics import Estimate


def ratio(
    gradient_square_P: np.ndarray, gradient_variance_P: np.ndarray, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """B_simple from P independent measurements of ‖G‖² and tr Σ, with a bootstrap's 95 % percentile interval.

    Each is averaged before dividing, else the quotient is biased (McCandlish et al. 2018, appendix A.1); see `over` for
    means that are not positive. One measurement sets no bounds (0, inf); none gives NaN.
    """
    square_P, variance_P = np.asarray(gradient_square_P, float), np.asarray(gradient_variance_P, float)
    if not (number := len(square_P)):
        return Estimate(math.nan, math.nan, math.nan)
    value = float(over(variance_P.mean(), square_P.mean()))
    if number == 1:
        return Estimate(value, 0, math.inf)
    index_RxP = np.random.default_rng(seed).integers(number, size=(resamples, number))
    value_R = over(variance_P[index_RxP].mean(1), square_P[index_RxP].mean(1))
    # A quantile between a finite and an infinite value would be NaN.
    low, high = np.quantile(value_R, (0.025, 0.975), method='inverted_cdf')
    return Estimate(value, float(low), float(high))


def over(variance: np.ndarray, square: np.ndarray) -> np.ndarray:
    """tr Σ / ‖G‖² of any shape, float64: inf where ‖G‖² is not positive, and 0 where tr Σ is below 0."""
    positive = np.maximum(variance, 0)
    return np.divide(positive, square, out=np.full_like(positive, math.inf), where=square > 0)
