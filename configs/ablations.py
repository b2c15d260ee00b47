"""The paper's ablations of the simulated anomalies (Table 3), on one category of MVTec AD.

    python train.py --config=configs/ablations.py:rectangles,bottle --config.dataset.root=MVTEC_AD \
        --config.dataset.texture_root=DTD/images --workdir=runs/rectangles_bottle

Published, mean of fifteen categories, image AUROC; pixel AUROC / AP:

    colours            plain colours for textures                     96.2; 92.6 / 56.5
    rectangles         rectangles for Perlin masks                    96.9; 96.8 / 65.1
    plain              neither augmented textures nor opacity         97.4; 94.5 / 64.3
    augmentation       augmented textures, fully opaque               97.4; 95.0 / 64.5
    opacity            opacity, textures as they are                  97.9; 97.1 / 68.4
    full               both                                           98.0; 97.3 / 68.4

Leave out the texture root with `colours`. ImageNet instead of DTD (97.9; 97.0 / 67.9) is configs/mvtec.py with another
--config.dataset.texture_root. The first rows of the paper's table change the networks and have no config here. The
paper does not state the sizes of its rectangles; ours are CutPaste's (data/synthesis/masks.py).

References:
    Zavrtanik, Kristan, Skocaj, DRAEM, ICCV 2021, section 4.3.
"""

from ml_collections import ConfigDict

from configs import mvtec

CHANGES = {
    'colours': {'dataset.texture_source': 'colour'},
    'rectangles': {'synthesis.mask_source': 'rectangle'},
    'plain': {'synthesis.operation_count': 0, 'synthesis.opacity': (1.0, 1.0)},
    'augmentation': {'synthesis.opacity': (1.0, 1.0)},
    'opacity': {'synthesis.operation_count': 0},
    'full': {},
}


def get_config(arg: str = 'full,bottle') -> ConfigDict:
    """`arg` is the ablation, the category and optionally the preset: 'colours,bottle' or 'colours,bottle,paper'."""
    ablation, _, rest = (arg or 'full,bottle').partition(',')
    if ablation not in CHANGES:
        raise ValueError(f'configs/ablations.py:{arg}: expected one of {", ".join(CHANGES)} after the colon.')
    config = mvtec.get_config(rest)
    config.update_from_flattened_dict(CHANGES[ablation])
    return config
