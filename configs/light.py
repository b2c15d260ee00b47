"""Narrow networks: most of the arithmetic is in the reconstructive network, and nobody has published what it is worth.

    python train.py --config=configs/light.py:32,64 --config.dataset.root=FOLDER \
        --config.dataset.texture_root=DTD/images --workdir=runs/light

The argument is the widths of the two networks. Everything else is as released. For an image of 256 x 256, the
arithmetic computed (networks.forward_flops, a multiplication and an addition are one MAC), the time measured on one
core of an Intel Xeon in float32, the image alone in its batch (benchmarks/results/inference_light_cpu.json); none has
been measured on a GPU:

    widths        GMAC    of which the reconstruction    parameters      ms an image
    128, 64      197.9    81 %                           97.4 million    3880           as released
     64, 64       78.1    51 %                           45.6 million    1580
     32, 64       48.1    21 %                           32.7 million    1000
     32, 32       19.7    51 %                           11.4 million     480
     16, 32       12.1    21 %                            8.2 million     300
     16, 16        5.0    51 %                            2.9 million
      8, 16        3.1    21 %                            2.1 million
     16, 8         3.2    80 %                            1.5 million                   configs/small_cpu.py

What they are worth on real parts, at 64 pixels: benchmarks/results/recipes/table.md, rows with @ and two widths.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(arg: str = '32,32') -> ConfigDict:
    """`arg` is the widths of the reconstructive and the discriminative network, such as '32,64'."""
    widths = (arg or '32,32').split(',')
    if len(widths) != 2 or not all(width.isdecimal() and int(width) for width in widths):
        raise ValueError(f'configs/light.py:{arg}: expected two widths after the colon, such as 32,64.')
    config = default.get_config()
    config.model.reconstructive_width, config.model.discriminative_width = map(int, widths)
    return config
