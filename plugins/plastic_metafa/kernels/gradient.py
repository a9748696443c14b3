"""The compiled meta-gradient: the derivative of a loss after adaptation with respect to theta."""

from __future__ import annotations

import math

import numpy as np

from plastic_metafa.kernels.products import (
    BETA,
    DIRECT,
    SIGN,
    SYMMETRIC,
    Array,
    add_product,
    dot,
    factors,
    kernel,
    respond,
    respond_signed,
    send_back,
    unit_offsets,
    weight_offsets,
)


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
    """Write to `gradient` (10,) the gradient of a loss with respect to theta.

    W (all,): the weights after the last sample. G (all,): the gradient of the loss with respect to them. y, z, u, e, v:
    as written by `adapt`. W and G are overwritten: with the weights before the first sample (in the lowest layer only
    if the gradient needs them) and with the gradient with respect to those. Undoing a sample divides by 1 - theta_3: if
    that is far from 1, use short streams.
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
    # Adjoints of y, e, u and v, and the part of the adjoint of z that comes from zeta. p: sums over the rows of G.
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
        # Back through the update of each layer.
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
            # Undo the update: the weights before this sample, if they are needed.
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
            # Derivatives of the loss with respect to each theta, kappa and zeta.
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
        # Back through the errors, from the input to the output.
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
        # Back through the activity, from the output to the input; G becomes the gradient before this sample.
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
