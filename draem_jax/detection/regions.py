"""Where the defects are: connected regions of an anomaly map above a threshold."""

import cv2
import numpy as np

Box = tuple[int, int, int, int]  # (left, top, width, height) in pixels


def find_regions(anomaly_map: np.ndarray, threshold: float) -> tuple[tuple[Box, ...], int]:
    """The connected regions where a map reaches a threshold; pixels that touch at a corner are connected.

    Args:
        anomaly_map: float32 [H, W].
        threshold: a pixel belongs to a defect where map >= threshold.

    Returns:
        (boxes, area): a tuple with the box of each region, the region with the most pixels first, and the number of
        pixels in all regions together.
    """
    mask = defect_mask(anomaly_map, threshold).astype(np.uint8)
    _, _, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    regions = statistics[1:]  # The first one is everything outside of all regions.
    regions = regions[np.argsort(-regions[:, cv2.CC_STAT_AREA], kind='stable')]
    boxes = tuple((int(left), int(top), int(width), int(height)) for left, top, width, height, _ in regions)
    return boxes, int(regions[:, cv2.CC_STAT_AREA].sum())


def defect_mask(anomaly_map: np.ndarray, threshold: float) -> np.ndarray:
    """bool [H, W]: where a map reaches a threshold, compared in float64 so that no threshold is rounded."""
    return anomaly_map.astype(np.float64) >= threshold
