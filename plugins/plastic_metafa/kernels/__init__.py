"""Compiled adaptation of one network to a stream of samples, and the gradient with respect to theta through it.

`rule.py` states the equations. The kernels compute the sum of the ten terms in another form. For one layer of weights,
let e, y be the error and activity above it and e', y' those below it:

    dW = e a^T + y b^T + 1 c^T - theta_3 W,          v = W^T y, kappa = v . e', zeta = z . e, s = sum of y
    a = -(theta_0 + theta_5 s + theta_7 kappa) y' - theta_2 e'
    b = -(theta_1 + theta_6 kappa + theta_8 zeta) e' + theta_9 (y' - v)
    c = -theta_4 e'

An update is therefore a few vectors. The gradient goes back through the stream by the adjoint of these equations. The
weights before each sample are found by subtracting its update: memory holds vectors of units for each sample, not a
copy of the weights. All arrays are float32, or all are float64. The weights of all layers are in one array, row by row.
The tests compare the kernels with automatic differentiation of the equations.
"""

from plastic_metafa.kernels.adaptation import adapt
from plastic_metafa.kernels.gradient import meta_gradient
from plastic_metafa.kernels.products import DIRECT, FIXED, SIGN, SYMMETRIC

__all__ = ["DIRECT", "FIXED", "SIGN", "SYMMETRIC", "adapt", "meta_gradient"]
