"""Plain-loop references in float64, written from the equations; nothing here is imported from the package."""
import math

import numpy as np
import torch


def entropy(p: float) -> float:
    return sum(-q * math.log2(q) for q in (p, 1 - p) if q > 0)


def probability(scores, k: int, activation: str) -> float:
    if activation == "none":
        return scores[k]
    if activation == "sigmoid":
        return 1 / (1 + math.exp(-scores[k]))
    return math.exp(scores[k]) / sum(math.exp(s) for s in scores)


def measure(model, x, region, k, activation):
    """Per-pixel (weight, p, Hb) of one example."""
    with torch.no_grad():
        outputs = model(x[None])[0]
    pixels = []
    for y in range(region.shape[0]):
        for c in range(region.shape[1]):
            m = float(region[y, c])
            if m > 0:
                p = probability([float(s) * m for s in outputs[:, y, c]], k, activation)
                pixels.append((m, p, entropy(p)))
    return pixels


def mean(pixels, which):
    return sum(p[0] * p[which] for p in pixels) / sum(p[0] for p in pixels)


def perturb(x, baseline, weights, grid):
    """x' = b + (x - b) keep on a grid, pixel by pixel."""
    out = x.clone()
    _, height, width = x.shape
    for y in range(height):
        for c in range(width):
            keep = weights[(y * grid // height) * grid + c * grid // width]
            for channel in range(len(x)):
                out[channel, y, c] = baseline + (float(x[channel, y, c]) - baseline) * keep
    return out


def neighbour_error(values, points):
    """Root of half the mean squared difference to the nearest neighbour, over N; values (N, d), points (N, d, 2)."""
    n, errors = len(values), []
    for i in range(values.shape[1]):
        total = 0.0
        for j in range(n):
            others = [(math.dist(points[j, i], points[k, i]), k) for k in range(n) if k != j]
            total += (values[min(others)[1], i] - values[j, i]) ** 2
        errors.append(math.sqrt(total / (2 * n) / n))
    return np.array(errors)


def estimate(model, x, region, k, activation, grid, pairs, baseline=0.0):
    """Both reductions, their errors, total and first order for one example; `pairs` is the (N, 2d) sequence."""
    n, d = len(pairs), grid * grid
    pixel, obj = np.zeros((n, d)), np.zeros((n, d))
    fa, fb, fc = np.zeros(n), np.zeros(n), np.zeros((n, d))
    for j in range(n):
        a, b = pairs[j][:d], pairs[j][d:]
        base = measure(model, perturb(x, baseline, a, grid), region, k, activation)
        fa[j] = mean(base, 1)
        fb[j] = mean(measure(model, perturb(x, baseline, b, grid), region, k, activation), 1)
        for i in range(d):
            c = list(a)
            c[i] = b[i]
            now = measure(model, perturb(x, baseline, c, grid), region, k, activation)
            fc[j, i] = mean(now, 1)
            weighted = sum(w * abs(h1 - h0) for (w, _, h1), (_, _, h0) in zip(now, base, strict=True))
            pixel[j, i] = weighted / sum(w for w, _, _ in now)
            obj[j, i] = abs(mean(now, 2) - mean(base, 2))
    variance = sum((f - fa.mean()) ** 2 for f in fa) / (n - 1)
    total = [sum((fa[j] - fc[j, i]) ** 2 for j in range(n)) / (2 * n) / variance for i in range(d)]
    first = [np.cov(fb, fc[:, i] - fa)[0, 1] / variance for i in range(d)]
    left_out = {"total": [], "first": []}
    for gone in range(n):
        rest = [j for j in range(n) if j != gone]
        v = np.var(fa[rest], ddof=1)
        left_out["total"].append([sum((fa[j] - fc[j, i]) ** 2 for j in rest) / (2 * (n - 1)) / v for i in range(d)])
        left_out["first"].append([np.cov(fb[rest], fc[rest, i] - fa[rest])[0, 1] / v for i in range(d)])
    index_error = {name: np.sqrt((n - 1) / n * ((np.array(v) - np.mean(v, 0)) ** 2).sum(0)) for name, v in left_out.items()}
    points = np.array([[(row[i], row[d + i]) for i in range(d)] for row in pairs])
    error = {name: values.std(0, ddof=1) / math.sqrt(n) for name, values in (("pixel", pixel), ("object", obj))}
    neighbours = {name: neighbour_error(values, points) for name, values in (("pixel", pixel), ("object", obj))}
    return {"pixel": pixel.mean(0), "object": obj.mean(0), "error": error, "neighbours": neighbours, "total": np.array(total),
            "first": np.array(first), "total_error": index_error["total"], "first_error": index_error["first"]}
