"""bsgap."""

import os

# Read when NumPy and SciPy are loaded: their small systems of equations are slower on several threads, the fit of the
# critical batch size more than ten times.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
