"""The gradient noise scale from what was measured during training.

B_simple = tr Σ / ‖G‖² (McCandlish et al. 2018, 1812.06162, §2.2, equation 2.9), in examples. G is the gradient of the
mean loss over the n training examples and Σ the covariance of one example's gradient, with n − 1 in its denominator.
"""

import math

import numpy as np

from bsgap.analysis.statistics import Estimate, standard_errors


def ratio(gradient_square_P: np.ndarray, gradient_variance_P: np.ndarray) -> Estimate:
    """B_simple from P independent measurements of ‖G‖² and tr Σ, with its 95 % interval.

    Each is averaged before dividing, else the quotient is biased (McCandlish et al. 2018, appendix A.1). The interval
    is that of its logarithm, by the delta method with Student's t; without an upper bound where ‖G‖² may be 0.
    One measurement sets no bounds (0, inf); none gives NaN. Infinite where ‖G‖² is not positive, 0 where tr Σ is not.
    """
    square_P, variance_P = np.asarray(gradient_square_P, float), np.asarray(gradient_variance_P, float)
    if not (number := len(square_P)):
        return Estimate(math.nan, math.nan, math.nan)
    square, variance = square_P.mean(), variance_P.mean()
    value = max(0.0, float(variance / square)) if square > 0 else math.inf
    if number == 1 or not 0 < value < math.inf:
        return Estimate(value, 0, math.inf)
    t = standard_errors(number) / math.sqrt(number)
    half_width = t * float((variance_P / variance - square_P / square).std(ddof=1))
    bounded = square > t * square_P.std(ddof=1)
    return Estimate(value, value * math.exp(-half_width), value * math.exp(half_width) if bounded else math.inf)
