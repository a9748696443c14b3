"""The compiled adaptation: the weights after a stream of samples."""

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
    factors,
    kernel,
    respond,
    send_back,
    send_back_signed,
    unit_offsets,
    weight_offsets,
)


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
    """Update the weights W (all,) on the stream x (samples, inputs), labels (samples,), one sample at a time.

    sizes: units of each layer, (layers + 1,). B: as W; for DIRECT, (classes, units) of layer 0, 1, ... one after the
    other. theta (10,): 0 for terms that are not `active` (10,). Writes y, z, u = B e, e and v = W^T y of all units for
    each sample, (samples, units). Values of a layer are at its units, those of v at the units of the layer below.
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
        # Activity, from the input to the output (1, 2).
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
        # Errors, from the output down (3, 24).
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
        # The update of each layer (5).
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
