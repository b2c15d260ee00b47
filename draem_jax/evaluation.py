"""A model on a test split: every image exactly once, in batches over all devices."""

import numpy as np

from draem_jax import devices


def run(predict, variables, batches):
    """Predicts every real example of padded batches.

    Args:
        predict: from `inference.make_predict`, mapped by `devices.parallel_predict`.
        variables: of the model.
        batches: dicts with 'image' [B, H, W, 3], 'mask' uint8 [B, H, W, 1] from 0 to 255, and lists with one entry for
            each real example ('label', 'defect_type', 'filename', 'has_mask'); rows beyond them are filler.

    Returns:
        Dict over all N examples: 'score' float32 [N], 'map' float32 [N, H, W], 'image' and 'reconstruction' uint8
        [N, H, W, 3], 'mask' uint8 [N, H, W] from 0 to 255, 'label' and 'has_mask' [N], 'defect_type' and
        'filename' lists.
    """
    parts = []
    for batch in batches:
        real = len(batch['label'])
        outputs = devices.predict_batch(predict, variables, batch['image'])
        part = {name: value[:real] for name, value in outputs.items()}
        part['image'] = batch['image'][:real]
        part['mask'] = batch['mask'][:real, ..., 0]
        part.update({name: batch[name] for name in ('label', 'defect_type', 'filename', 'has_mask')})
        parts.append(part)
    arrays = {
        name: np.concatenate([part[name] for part in parts])
        for name in ('score', 'map', 'image', 'reconstruction', 'mask', 'label', 'has_mask')
    }
    names = {name: [value for part in parts for value in part[name]] for name in ('defect_type', 'filename')}
    return {**arrays, **names}


def defective_pixels(masks, mask_rule):
    """Which pixels of resized masks count as defective.

    Args:
        masks: uint8, 0 to 255.
        mask_rule: 'half': above one half; 'full': only the full value, as in the authors' code, which after bilinear
            resizing leaves out the rims of defects.

    Returns:
        uint8 in {0, 1}, of the same shape.
    """
    return (masks > 127.5 if mask_rule == 'half' else masks == 255).astype(np.uint8)
