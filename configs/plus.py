"""What may make DRAEM better for the same time: switches, each with its source, and `PLUS`, those that help.

    python train.py --config=configs/plus.py --config.dataset.root=FOLDER \
        --config.dataset.texture_root=DTD/images --workdir=runs/plus
    python train.py --config=configs/plus.py:fast+grain ...

The argument names switches with + between; without one it is `PLUS`, and `official` is none of them. Everything else is
configs/default.py's. No switch needs a pretrained network. benchmarks/recipes.py compares them on real parts by defects
drawn on held-out normal images, and then fills in the test: benchmarks/results/recipes/table.md.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import default

# name: what it changes. Sizes are those of 256 x 256 pixels unless the source says otherwise.
SWITCHES: dict[str, dict[str, Any]] = {
    'official': {},
    # Ten times the rate, with a linear warm-up, down to 0 along a cosine (Loshchilov and Hutter, SGDR, 2017).
    'fast': {'optimizer.learning_rate': 1e-3, 'optimizer.warmup_steps': 100, 'optimizer.schedule': 'cosine'},
    # Moving averages of weights and running statistics (Polyak and Juditsky, 1992).
    'ema': {'training.ema_decay': 0.99},
    # Half as many steps of twice as many examples (the benchmark keeps the number of examples).
    'batch16': {'training.batch_size': 16},
    # Two Perlin masks together (Chen et al., GLASS, ECCV 2024).
    'union': {'synthesis.mask_source': 'union'},
    # The mean distance of map and mask in the loss (Zhang et al., DeSTSeg, CVPR 2023).
    'l1': {'loss.mask_l1': 1.0},
    # Pixels that hardly change are no anomaly (Guo et al., JNLD, ICME 2022).
    'correction': {'synthesis.label_correction': 8},
    # Anomalies lie on the part alone (Yang et al., MemSeg, 2023), for a plain background.
    'foreground': {'synthesis.foreground_threshold': 20},
    # |image - reconstruction| as further input of the segmentation (Zhang et al., DiffAD, ICCV 2023).
    'difference': {'model.sees_difference': True},
    # A quarter of the anomalies are patches of other normal images (CAF; Liu et al., FAIR, 2023).
    'patches': {'synthesis.normal_patch_probability': 0.25},
    # The reconstruction starts from high frequencies (after FAIR).
    'highpass': {'model.high_pass_sigma': 2.0},
    # Parts that look the same from all sides.
    'turns': {'synthesis.quarter_turns': True, 'synthesis.flips': True},
    # Parts that always lie in the same way.
    'upright': {'synthesis.rotation_probability': 0.0},
    # No zeros beyond borders, and no black corners.
    'borders': {'model.padding': 'reflect', 'synthesis.rotation_fill': 'mirror'},
    # Anomalies of finer grain: at least two noise cells along each side.
    'grain': {'synthesis.min_cells_log2': 1},
    'grain2': {'synthesis.min_cells_log2': 2},
    # Grey parts get grey anomalies (ours).
    'grey': {'synthesis.match_grey': True},
    # The map starts from "normal" (Lin et al., Focal Loss, 2017), so that strong anomalies do not tie.
    'prior': {'model.anomaly_prior': 0.01},
    # The mean of the highest thousandth of the pixels in place of one window.
    'top': {'evaluation.score_window': 1, 'evaluation.score_top': 0.005},
}

# Not chosen yet: so far one seed has been compared (configs/README.md), on held-out images alone.
PLUS = ('fast', 'grey', 'prior')


def get_config(arg: str = '') -> ConfigDict:
    """`arg` is '' for `PLUS`, or names of `SWITCHES` with + between, such as 'fast+grain'."""
    names = arg.split('+') if arg else PLUS
    config = default.get_config()
    for name in names:
        if name not in SWITCHES:
            raise ValueError(f'configs/plus.py:{arg}: expected names out of {", ".join(SWITCHES)} after the colon.')
        config.update_from_flattened_dict(SWITCHES[name])
    return config
