"""Compiled adaptation of one network to one stream of samples, and the gradient with respect to theta through it.

`rule.py` states the mathematics; here the ten terms are written as what they are together: with e, y the error and
activity above a layer of weights, e', y' those below,

    dW = e a^T + y b^T + 1 c^T - theta_3 W,          v = W^T y, kappa = v . e', zeta = z . e, s = sum of y
    a = -(theta_0 + theta_5 s + theta_7 kappa) y' - theta_2 e'
    b = -(theta_1 + theta_6 kappa + theta_8 zeta) e' + theta_9 (y' - v)
    c = -theta_4 e'

so that an update is kept as a few vectors. The gradient goes back through the stream by the adjoint of these
equations, and each step's weights are found by taking its update off again: what is kept are vectors of units, not a
copy of the weights for each. Arrays are float32 or float64, all of one kind; weights of all layers lie in one array,
row by row. The tests hold the kernels against automatic differentiation of the equations.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plastic_cli.numerics.kernels import Kernels, part

Array = NDArray[Any]

FIXED, SYMMETRIC, DIRECT, SIGN = range(4)
"""Where feedback comes from: B, W itself, B from the output, |B| with the signs of W."""

_KERNELS = Kernels(Path(__file__).parent, ("compiled.py",))
kernel = _KERNELS.kernel

BETA = 10.0


@part
def unit_offsets(sizes: Array) -> Array:
    """Return where each layer's units begin in an array of all units, (layers + 1,)."""
    offsets = np.zeros(len(sizes) + 1, np.int64)
    for l in range(len(sizes)):
        offsets[l + 1] = offsets[l] + sizes[l]
    return offsets


@part
def weight_offsets(sizes: Array) -> Array:
    """Return where each layer's weights begin in an array of all weights; entry 0 is that of layer 1."""
    offsets = np.zeros(len(sizes), np.int64)
    for l in range(1, len(sizes)):
        offsets[l] = offsets[l - 1] + sizes[l] * sizes[l - 1]
    return offsets


@part
def dot(x: Array, y: Array) -> Any:
    """X . y."""
    total = x[0] * y[0]
    for i in range(1, len(x)):
        total += x[i] * y[i]
    return total


@part
def respond(W: Array, x: Array, z: Array) -> None:
    """Z += W x."""
    for i in range(W.shape[0]):
        row = W[i]
        total = z[i]
        for j in range(len(x)):
            total += row[j] * x[j]
        z[i] = total


@part
def send_back(W: Array, e: Array, u: Array) -> None:
    """U += W^T e."""
    for i in range(W.shape[0]):
        row, factor = W[i], e[i]
        for j in range(len(u)):
            u[j] += factor * row[j]


@part
def send_back_signed(B: Array, W: Array, e: Array, u: Array) -> None:
    """U += (|B| sign W)^T e."""
    for i in range(W.shape[0]):
        magnitudes, signs, factor = B[i], W[i], e[i]
        for j in range(len(u)):
            u[j] += factor * math.copysign(magnitudes[j], signs[j])


@part
def respond_signed(B: Array, W: Array, x: Array, z: Array) -> None:
    """Z += (|B| sign W) x."""
    for i in range(W.shape[0]):
        magnitudes, signs = B[i], W[i]
        total = z[i]
        for j in range(len(x)):
            total += math.copysign(magnitudes[j], signs[j]) * x[j]
        z[i] = total


@part
def add_product(W: Array, e: Array, a: Array, sign: float) -> None:
    """W += sign e a^T."""
    for i in range(W.shape[0]):
        row, factor = W[i], sign * e[i]
        for j in range(len(a)):
            row[j] += factor * a[j]


@part
def factors(
    y1: Array, y0: Array, z1: Array, e1: Array, e0: Array, v: Array, theta: Array, a: Array, b: Array, c: Array
) -> tuple[Any, Any, Any, Any, Any]:
    """Write a, b and c of one layer; return s, kappa, zeta and what stands before y' in -a and before e' in -b."""
    kappa = dot(v, e0)
    zeta = dot(z1, e1)
    s = y1[0]
    for k in range(1, len(y1)):
        s += y1[k]
    alpha = theta[0] + theta[5] * s + theta[7] * kappa
    gamma = theta[1] + theta[6] * kappa + theta[8] * zeta
    for j in range(len(a)):
        a[j] = -alpha * y0[j] - theta[2] * e0[j]
        b[j] = -gamma * e0[j] + theta[9] * (y0[j] - v[j])
        c[j] = -theta[4] * e0[j]
    return s, kappa, zeta, alpha, gamma


@kernel
def adapt(
    sizes: Array,
    W: Array,
    B: Array,
    x: Array,
    labels: Array,
    theta: Array,
    active: Array,
    feedback: int,
    y: Array,
    z: Array,
    u: Array,
    e: Array,
    v: Array,
) -> None:
    """Let weights W (all,) learn from the stream x (samples, inputs), labels (samples,), one sample at a time.

    sizes (layers + 1,). B as W; for DIRECT (classes, units) of layer 0, 1, ... in a row. theta (10,), of which those
    that are not `active` (10,) are 0. Writes each sample's y, z, u = B e, e and v = W^T y of all units to (samples,
    units); that of layer l stands at its units, for v at those of the layer below.
    """
    layers = len(sizes) - 1
    units, weights = unit_offsets(sizes), weight_offsets(sizes)
    uses_e = active[1] or active[2] or active[4] or active[6] or active[7] or active[8]
    uses_b = active[1] or active[6] or active[8] or active[9]
    uses_v = active[6] or active[7] or active[9]
    lowest = 0 if uses_e else 1
    a_all, b_all, c_all = np.zeros_like(y[0]), np.zeros_like(y[0]), np.zeros_like(y[0])
    beta = W.dtype.type(BETA)
    one = W.dtype.type(1)
    for t in range(len(x)):
        y[t, : sizes[0]] = x[t]
        for l in range(1, layers + 1):
            low, here, above = units[l - 1], units[l], units[l + 1]
            Wl = W[weights[l - 1] : weights[l]].reshape(sizes[l], sizes[l - 1])
            zl, yl = z[t, here:above], y[t, here:above]
            zl[:] = 0
            respond(Wl, y[t, low:here], zl)
            if l < layers:
                for k in range(sizes[l]):
                    scaled = beta * zl[k]
                    yl[k] = (max(scaled, 0 * one) + math.log1p(math.exp(-abs(scaled)))) / beta
            else:
                top = zl[0]
                for k in range(1, sizes[l]):
                    top = max(top, zl[k])
                total = 0 * one
                for k in range(sizes[l]):
                    yl[k] = math.exp(zl[k] - top)
                    total += yl[k]
                for k in range(sizes[l]):
                    yl[k] /= total
        last = e[t, units[layers] : units[layers + 1]]
        last[:] = y[t, units[layers] : units[layers + 1]]
        last[labels[t]] -= one
        for l in range(layers - 1, lowest - 1, -1):
            low, here, above = units[l], units[l + 1], units[l + 2]
            ul = u[t, low:here]
            ul[:] = 0
            Wl = W[weights[l] : weights[l + 1]].reshape(sizes[l + 1], sizes[l])
            if feedback == DIRECT:
                send_back(B[low * sizes[layers] : here * sizes[layers]].reshape(sizes[layers], sizes[l]), last, ul)
            elif feedback == SYMMETRIC:
                send_back(Wl, e[t, here:above], ul)
            else:
                Bl = B[weights[l] : weights[l + 1]].reshape(sizes[l + 1], sizes[l])
                if feedback == SIGN:
                    send_back_signed(Bl, Wl, e[t, here:above], ul)
                else:
                    send_back(Bl, e[t, here:above], ul)
            for k in range(sizes[l]):
                e[t, low + k] = ul[k] * -math.expm1(-beta * y[t, low + k])
        for l in range(1, layers + 1):
            low, here, above = units[l - 1], units[l], units[l + 1]
            Wl = W[weights[l - 1] : weights[l]].reshape(sizes[l], sizes[l - 1])
            y1, y0, e1, e0 = y[t, here:above], y[t, low:here], e[t, here:above], e[t, low:here]
            vl = v[t, low:here]
            if uses_v:
                vl[:] = 0
                send_back(Wl, y1, vl)
            a, b, c = a_all[low:here], b_all[low:here], c_all[low:here]
            factors(y1, y0, z[t, here:above], e1, e0, vl, theta, a, b, c)
            if not active[3] and not active[4]:
                if not uses_b:
                    add_product(Wl, e1, a, one)
                else:
                    for i in range(sizes[l]):
                        row, by_e, by_y = Wl[i], e1[i], y1[i]
                        for j in range(sizes[l - 1]):
                            row[j] += by_e * a[j] + by_y * b[j]
            else:
                keep = one - theta[3]
                for i in range(sizes[l]):
                    row, by_e, by_y = Wl[i], e1[i], y1[i]
                    for j in range(sizes[l - 1]):
                        row[j] = keep * row[j] + by_e * a[j] + by_y * b[j] + c[j]


@kernel
def meta_gradient(
    sizes: Array,
    W: Array,
    B: Array,
    theta: Array,
    active: Array,
    feedback: int,
    y: Array,
    z: Array,
    u: Array,
    e: Array,
    v: Array,
    G: Array,
    gradient: Array,
) -> None:
    """Write the gradient with respect to theta (10,), of a loss whose gradient with respect to the last weights is G.

    W: the weights behind the last sample; y, z, u, e, v: what `adapt` wrote. W and G (all,) are used up: at the end
    they hold the first weights, in the lowest layer only where the gradient needs them, and the gradient with respect
    to them. Undoing a sample divides by 1 - theta_3: where that is far from 1, go back in short streams.
    """
    layers = len(sizes) - 1
    units, weights = unit_offsets(sizes), weight_offsets(sizes)
    uses_e = active[1] or active[2] or active[4] or active[6] or active[7] or active[8]
    uses_b = active[1] or active[6] or active[8] or active[9]
    uses_v = active[6] or active[7] or active[9]
    lowest = 0 if uses_e else 1
    tied = feedback in (SYMMETRIC, SIGN)
    beta, one, zero = W.dtype.type(BETA), W.dtype.type(1), W.dtype.type(0)
    keep = one - theta[3]
    like = y[0]
    # Adjoints of y, e, u, v, and the part of z's that comes from zeta; a layer's p are sums over its rows of G.
    y_bar, e_bar, u_bar, v_bar, z_bar = (
        np.zeros_like(like),
        np.zeros_like(like),
        np.zeros_like(like),
        np.zeros_like(like),
        np.zeros_like(like),
    )
    a_all, b_all, c_all = np.zeros_like(like), np.zeros_like(like), np.zeros_like(like)
    p_e_all, p_y_all, p_1_all = np.zeros_like(like), np.zeros_like(like), np.zeros_like(like)
    gradient[:] = 0
    for t in range(len(y) - 1, -1, -1):
        y_bar[:] = 0
        e_bar[:] = 0
        for l in range(1, layers + 1):
            low, here, above = units[l - 1], units[l], units[l + 1]
            Wl = W[weights[l - 1] : weights[l]].reshape(sizes[l], sizes[l - 1])
            Gl = G[weights[l - 1] : weights[l]].reshape(sizes[l], sizes[l - 1])
            y1, y0, e1, e0 = y[t, here:above], y[t, low:here], e[t, here:above], e[t, low:here]
            z1, vl = z[t, here:above], v[t, low:here]
            a, b, c = a_all[low:here], b_all[low:here], c_all[low:here]
            s, kappa, zeta, alpha, gamma = factors(y1, y0, z1, e1, e0, vl, theta, a, b, c)
            p_e, p_y, p_1 = p_e_all[low:here], p_y_all[low:here], p_1_all[low:here]
            p_e[:] = 0
            p_y[:] = 0
            p_1[:] = 0
            width = sizes[l - 1]
            for i in range(sizes[l]):
                row, factor = Gl[i], e1[i]
                total = zero
                for j in range(width):
                    total += row[j] * a[j]
                    p_e[j] += factor * row[j]
                e_bar[here + i] += total
            if uses_b:
                for i in range(sizes[l]):
                    row, factor = Gl[i], y1[i]
                    total = zero
                    for j in range(width):
                        total += row[j] * b[j]
                        p_y[j] += factor * row[j]
                    y_bar[here + i] += total
            if active[4]:
                for i in range(sizes[l]):
                    row = Gl[i]
                    for j in range(width):
                        p_1[j] += row[j]
            # The weights before this sample, where they are needed.
            if l > 1 or uses_v or active[3] or (tied and uses_e):
                if not active[3] and not active[4]:
                    if not uses_b:
                        add_product(Wl, e1, a, -one)
                    else:
                        for i in range(sizes[l]):
                            row, by_e, by_y = Wl[i], e1[i], y1[i]
                            for j in range(width):
                                row[j] -= by_e * a[j] + by_y * b[j]
                else:
                    for i in range(sizes[l]):
                        row, by_e, by_y = Wl[i], e1[i], y1[i]
                        for j in range(width):
                            row[j] = (row[j] - by_e * a[j] - by_y * b[j] - c[j]) / keep
                if active[3]:
                    for i in range(sizes[l]):
                        gradient[3] -= dot(Gl[i], Wl[i])
            by_gradient, by_error = -dot(p_e, y0), zero
            gradient[0] += by_gradient
            gradient[5] += s * by_gradient
            gradient[7] += kappa * by_gradient
            if uses_e:
                gradient[2] -= dot(p_e, e0)
                gradient[4] -= dot(p_1, e0)
                by_error = -dot(p_y, e0)
                gradient[1] += by_error
                gradient[6] += kappa * by_error
                gradient[8] += zeta * by_error
            if active[9]:
                gradient[9] += dot(p_y, y0) - dot(p_y, vl)
            kappa_bar = theta[7] * by_gradient + theta[6] * by_error
            zeta_bar = theta[8] * by_error
            vb = v_bar[low:here]
            for j in range(width):
                y_bar[low + j] += -alpha * p_e[j] + theta[9] * p_y[j]
                e_bar[low + j] += -theta[2] * p_e[j] - gamma * p_y[j] - theta[4] * p_1[j] + kappa_bar * vl[j]
                vb[j] = kappa_bar * e0[j] - theta[9] * p_y[j]
            for k in range(sizes[l]):
                y_bar[here + k] += theta[5] * by_gradient
                e_bar[here + k] += zeta_bar * z1[k]
                z_bar[here + k] = zeta_bar * e1[k]
            if uses_v:
                respond(Wl, vb, y_bar[here:above])
        output = e_bar[units[layers] : units[layers + 1]]
        for l in range(lowest, layers):
            low, here, above = units[l], units[l + 1], units[l + 2]
            ub = u_bar[low:here]
            for k in range(sizes[l]):
                slope = -math.expm1(-beta * y[t, low + k])
                ub[k] = e_bar[low + k] * slope
                y_bar[low + k] += beta * (one - slope) * e_bar[low + k] * u[t, low + k]
            Wl = W[weights[l] : weights[l + 1]].reshape(sizes[l + 1], sizes[l])
            if feedback == DIRECT:
                respond(B[low * sizes[layers] : here * sizes[layers]].reshape(sizes[layers], sizes[l]), ub, output)
            elif feedback == SYMMETRIC:
                respond(Wl, ub, e_bar[here:above])
            else:
                Bl = B[weights[l] : weights[l + 1]].reshape(sizes[l + 1], sizes[l])
                if feedback == SIGN:
                    respond_signed(Bl, Wl, ub, e_bar[here:above])
                else:
                    respond(Bl, ub, e_bar[here:above])
        for l in range(layers, 0, -1):
            low, here, above = units[l - 1], units[l], units[l + 1]
            Wl = W[weights[l - 1] : weights[l]].reshape(sizes[l], sizes[l - 1])
            Gl = G[weights[l - 1] : weights[l]].reshape(sizes[l], sizes[l - 1])
            y1, y0, e1 = y[t, here:above], y[t, low:here], e[t, here:above]
            yb, zb = y_bar[here:above], z_bar[here:above]
            if l == layers:
                total = zero
                for k in range(sizes[l]):
                    yb[k] += e_bar[here + k]
                    total += yb[k] * y1[k]
                for k in range(sizes[l]):
                    zb[k] += y1[k] * (yb[k] - total)
            else:
                for k in range(sizes[l]):
                    zb[k] += yb[k] * -math.expm1(-beta * y1[k])
            if l > 1:
                send_back(Wl, zb, y_bar[low:here])
            vb, ub = v_bar[low:here], u_bar[low:here]
            width = sizes[l - 1]
            tied_here = feedback == SYMMETRIC and l > lowest
            if active[3] or uses_v or tied_here:
                for i in range(sizes[l]):
                    row, by_z, by_y = Gl[i], zb[i], y1[i]
                    by_e = e1[i] if tied_here else zero
                    for j in range(width):
                        row[j] = keep * row[j] + by_z * y0[j] + by_y * vb[j] + by_e * ub[j]
            else:
                add_product(Gl, zb, y0, one)
