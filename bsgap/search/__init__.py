"""Which runs are trained next, when the answer is searched for."""
