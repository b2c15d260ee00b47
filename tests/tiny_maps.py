"""Anomaly maps with masks for tests of metrics, and AUPRO of them computed the slow way."""

import numpy as np


def naive_aupro(maps, masks, max_fpr):
    """The curve point by point, its regions found by flooding."""
    regions = []
    for image, mask in enumerate(masks):
        left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
        while left:
            region, border = [], [left.pop()]
            while border:
                y, x = border.pop()
                region.append((image, y, x))
                near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
                left -= near
                border.extend(near)
            regions.append(maps[tuple(np.transpose(region))])
    normal = maps[masks == 0]
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        rates.append(np.mean(normal >= threshold))
        overlaps.append(np.mean([np.mean(region >= threshold) for region in regions]))
    area = 0.0
    for left, right, low, high in zip(rates, rates[1:], overlaps, overlaps[1:], strict=False):
        if right > max_fpr:
            if left < max_fpr:
                high = low + (high - low) * (max_fpr - left) / (right - left)
                area += (max_fpr - left) * (low + high) / 2
            break
        area += (right - left) * (low + high) / 2
    return area / max_fpr


def random_maps(seed, *, count=6, size=12, levels=20):
    """Maps with ties and blotchy masks; some images have no defect."""
    generator = np.random.default_rng(seed)
    masks = (generator.random((count, size, size)) < 0.15).astype(np.uint8)
    masks[: count // 3] = 0
    maps = generator.random((count, size, size)) + 0.3 * masks
    return (np.round(maps * levels) / levels).astype(np.float32), masks
