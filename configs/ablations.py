"""The paper's ablations (table 3) and few textures (figure 9), on one category of MVTec AD.

    python train.py --config=configs/ablations.py:rectangles,bottle --config.dataset.root=MVTEC_AD \
        --config.dataset.texture_root=DTD/images --workdir=runs/rectangles_bottle

Published, mean of fifteen categories, image AUROC; pixel AUROC / AP:

    discriminative_only    the image alone is segmented                       93.9; 92.7 / 62.5
    reconstruction_ssim    reconstruction alone, its SSIM as the map          83.9; 89.7 / 47.5
    reconstruction_msgms   the same with MSGMS in the loss and as the map     90.7; 93.4 / 50.9
    colours                plain colours for textures                         96.2; 92.6 / 56.5
    imagenet               full, with ImageNet for textures                   97.9; 97.0 / 67.9
    rectangles             rectangles for Perlin masks                        96.9; 96.8 / 65.1
    plain                  neither augmented textures nor opacity             97.4; 94.5 / 64.3
    augmentation           augmented textures, fully opaque                   97.4; 95.0 / 64.5
    opacity                opacity, textures as they are                      97.9; 97.1 / 68.4
    full                   both                                               98.0; 97.3 / 68.4
    few_textures_N         N textures, 1 to 10                                read them off the paper's figure 9

Table 3 is one command and one table; the names of all rows but `imagenet`, which takes other textures, are printed by
`python -m configs.ablations CATEGORY`:

    python sweep.py --config=$(python -m configs.ablations bottle) --categories=all --config.dataset.root=MVTEC_AD \
        --config.dataset.texture_root=DTD/images --workdir=runs/table_3
    python sweep.py --config=configs/ablations.py:imagenet,bottle --categories=all --config.dataset.root=MVTEC_AD \
        --config.dataset.texture_root=IMAGENET --workdir=runs/imagenet

The paper does not state the sizes of its rectangles; ours are CutPaste's (data/synthesis/masks.py). It does not say how
its reconstruction alone was trained either: ours sees the same simulated anomalies as the full method, with the losses
l2 and ssim, and msgms added in the third row.

References:
    Zavrtanik, Kristan, Skocaj, DRAEM, ICCV 2021, section 4.3.
    Zavrtanik, Kristan, Skocaj, Reconstruction by inpainting for visual anomaly detection, Pattern Recognition 2021
    (MSGMS).
"""

import sys

from ml_collections import ConfigDict

from configs import mvtec

CHANGES = {
    'discriminative_only': {'model.networks': 'discriminative'},
    'reconstruction_ssim': {'model.networks': 'reconstructive', 'model.anomaly_map': 'ssim'},
    'reconstruction_msgms': {
        'model.networks': 'reconstructive',
        'model.anomaly_map': 'msgms',
        'loss.msgms': 1.0,
    },
    'colours': {'dataset.texture_source': 'colour'},
    'imagenet': {},
    'rectangles': {'synthesis.mask_source': 'rectangle'},
    'plain': {'synthesis.operation_count': 0, 'synthesis.opacity': (1.0, 1.0)},
    'augmentation': {'synthesis.opacity': (1.0, 1.0)},
    'opacity': {'synthesis.operation_count': 0},
    'full': {},
    **{f'few_textures_{count}': {'dataset.texture_count': count} for count in range(1, 11)},
}
TABLE_3 = tuple(name for name in CHANGES if not name.startswith(('imagenet', 'few_textures')))


def get_config(arg: str = 'full,bottle') -> ConfigDict:
    """`arg` is the ablation, the category and optionally the preset: 'colours,bottle' or 'colours,bottle,paper'."""
    ablation, _, rest = (arg or 'full,bottle').partition(',')
    if ablation not in CHANGES:
        raise ValueError(f'configs/ablations.py:{arg}: expected one of {", ".join(CHANGES)} after the colon.')
    config = mvtec.get_config(rest)
    config.update_from_flattened_dict(CHANGES[ablation])
    return config


if __name__ == '__main__':
    print(','.join(f'configs/ablations.py:{name},{",".join(sys.argv[1:]) or "bottle"}' for name in TABLE_3))
