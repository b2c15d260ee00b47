"""Every setting, with its unit and its source.

    python train.py --config=configs/default.py --config.dataset.root=FOLDER \
        --config.dataset.texture_root=TEXTURES --workdir=RUN

Other experiments start from here and change what differs. The values are those of the authors' released code
(`official`), but for six places where we mean to do otherwise: colours are RGB, not BGR; the brightness operation
always works on the luma; SSIM's dynamic range is 1 (loss.guess_range brings the guess back); the focal loss has no
smoothing; ground truth is what exceeds one half (evaluation.mask_rule); and everything random has a seed.
`paper` as the argument (configs/default.py:paper) takes the values printed in the paper wherever the released code
deviates from it; where the paper is silent, `paper` is `official`.

References:
    Zavrtanik, Kristan, Skocaj, DRAEM, ICCV 2021 ("paper"); the authors' released code and weights ("official").
"""

from ml_collections import ConfigDict

PRESETS = ('official', 'paper')

# What changes textures; the paper names all but three of them, and `hue_saturation` is its colour.
OPERATIONS = (
    'gamma_contrast',
    'brightness',
    'sharpness',
    'hue_saturation',
    'solarize',
    'posterize',
    'invert',
    'autocontrast',
    'equalize',
    'rotate',
)
PAPER_OPERATIONS = ('posterize', 'sharpness', 'solarize', 'equalize', 'brightness', 'hue_saturation', 'autocontrast')


def get_config(arg='official'):
    """Args: arg: 'official' or 'paper'."""
    preset = arg or 'official'
    if preset not in PRESETS:
        raise ValueError(f'configs/default.py:{preset}: expected one of {", ".join(PRESETS)} after the colon.')
    config = ConfigDict()

    config.dataset = ConfigDict()
    # A builder of data/: folder, mvtec_ad, simulated, ...
    config.dataset.name = 'folder'
    # One object of the data set, such as 'bottle'; several ('bottle,screw'), or 'all' of them, for one model of them
    # together; for `folder` a folder below root, or empty.
    config.dataset.category = ''
    # Options of the builder, as data/README.md names them: 'name=value' with commas between, such as
    # 'normal=ok,defects=ng,masks=labels' for `folder` or 'split=2cls_highshot' for `visa`.
    config.dataset.options = ''
    # Folder of the data set, as its entry in data/README.md says.
    config.dataset.root = ''
    # (height, width) in pixels that every image is resized to; multiples of 32. Official and paper: 256.
    config.dataset.image_size = (256, 256)
    # Average over the source's pixels where an image shrinks. Official: False, plain bilinear interpolation.
    config.dataset.antialias = False
    # Part of the normal training images kept out of training, to watch it with simulated anomalies; in [0, 1).
    config.dataset.validation_fraction = 0.0
    # Part of the normal training images kept for the test where the data set has no test images, in [0, 1): the test is
    # then on these and on anomalies simulated on them. 0: no test.
    config.dataset.test_fraction = 0.0
    # Pass over training images and textures that cannot be read, which are named and counted; test images never.
    config.dataset.skip_unreadable = False
    # What is pasted as an anomaly: 'folder' (any images, however nested; official: the 5640 of DTD), 'dtd' (the same as
    # TFDS keeps it), 'procedural' (drawn, for when nothing can be downloaded), 'colour' (a plain one for each example:
    # an ablation of the paper), or 'self' (patches of other normal images).
    config.dataset.texture_source = 'folder'
    # Folder of the texture images; with 'dtd' TFDS's data folder, or empty for its own.
    config.dataset.texture_root = ''
    # How many textures to use at most; 0: all there are, 512 procedural ones.
    config.dataset.texture_count = 0
    # Where decoded images and textures are kept: 'memory', 'disk' (one memory-mapped file, made once, for more than fit
    # in memory), or 'none' (decoded for each example). The examples are the same.
    config.dataset.cache = 'memory'
    # Folder of the files of 'disk'; empty: draem_jax/images in the user's cache folder.
    config.dataset.cache_folder = ''
    # What 'memory' may take, in GB of 10^9 bytes; 10,000 images of 256 x 256 are 2.
    config.dataset.cache_limit_gb = 8.0

    # How a training example is made; the official values are the defaults of data.synthesis.example.make_example.
    paper = preset == 'paper'
    config.synthesis = ConfigDict()
    # Probability of pasting an anomaly at all; paper and official: 0.5.
    config.synthesis.anomaly_probability = 0.5
    # Probability and largest angle (degrees, either way) of rotating the normal image. Official: 90, paper: 45.
    config.synthesis.rotation_probability = 0.3
    config.synthesis.rotation_degrees = 45.0 if paper else 90.0
    # Lowest and highest share of the texture inside the mask. Official: from 0.2, paper: from 0.1.
    config.synthesis.opacity = (0.1, 1.0) if paper else (0.2, 1.0)
    # How textures are changed: this many different operations, in random order; 0 for none.
    config.synthesis.operations = PAPER_OPERATIONS if paper else OPERATIONS
    config.synthesis.operation_count = 3
    # Shape of the anomalies: 'perlin', 'simplex' (other noise), 'rectangle', or 'union' (of two Perlin masks).
    config.synthesis.mask_source = 'perlin'
    # The mask is where the noise exceeds a threshold drawn from this range. Official: 0.5; paper: no range.
    config.synthesis.mask_threshold = (0.2, 0.7) if paper else (0.5, 0.5)
    # The noise has 2^k cells along each side, k uniform from 0 to this; a cell keeps at least so many pixels.
    config.synthesis.max_cells_log2 = 5
    config.synthesis.min_cell_size = 4
    # Largest rotation of the noise, in degrees, either way; official: 90.
    config.synthesis.mask_rotation_degrees = 90.0
    # Paste only the luma of a texture into images without colour, where it would give itself away. Official: False.
    config.synthesis.match_grey = False
    # For objects in front of a plain background: keep anomalies where the image differs from the background's colour by
    # more than this many levels of 255. 0: anywhere. Official and paper: 0.
    config.synthesis.foreground_threshold = 0
    # Take pixels that an anomaly changes by less than this many levels of 255 out of its mask; 0: none, as in official
    # and paper. After JNLD (Guo et al., ICME 2022).
    config.synthesis.label_correction = 0

    config.model = ConfigDict()
    # Channels of the first stage of each network; official: 128 and 64.
    config.model.reconstructive_width = 128
    config.model.discriminative_width = 64
    # Of activations: float32, bfloat16, or auto: bfloat16 on accelerators and float32 on a CPU.
    config.model.dtype = 'auto'
    # Keep only the inputs of every block of a network for the backward pass, which computes the rest once more: larger
    # images or batches fit, and a step takes longer. benchmarks/README.md says by how much.
    config.model.remat = False

    config.loss = ConfigDict()
    # Weights of the three parts; paper and official: 1.
    config.loss.l2 = 1.0
    config.loss.ssim = 1.0
    config.loss.focal = 1.0
    # Focusing exponent of the focal loss; official: 2.
    config.loss.gamma = 2.0
    # Guess SSIM's dynamic range from each batch as the authors' code does; a fixed range of 1 otherwise.
    config.loss.guess_range = False

    config.optimizer = ConfigDict()
    # Adam's step size; paper and official: 1e-4.
    config.optimizer.learning_rate = 1e-4
    # What the rate is multiplied by at each of these fractions of the run. Paper: after 400 and 600 of 700 epochs.
    config.optimizer.decay_factor = 0.1 if paper else 0.2
    config.optimizer.decay_at = (400 / 700, 600 / 700) if paper else (0.8, 0.9)
    # Steps of linear rise from 0 at the start; official: none.
    config.optimizer.warmup_steps = 0

    config.training = ConfigDict()
    # Seed of initial weights and of every training example.
    config.training.seed = 0
    # Examples per step over all devices; official: 8.
    config.training.batch_size = 8
    # Cut each device's examples into so many slices that pass one after the other: the memory of one, the gradient of
    # all. Batch statistics are then those of a slice (over all devices), so more slices are another training.
    config.training.accumulation_slices = 1
    # Length in epochs of ceil(images / batch_size) steps; paper and official: 700.
    config.training.epochs = 700
    # Length in steps; where it is not 0 it takes the place of epochs.
    config.training.steps = 0
    # Steps between two log lines, validations, TensorBoard pictures, checkpoints; 0: at the end only.
    config.training.log_every_steps = 50
    config.training.validate_every_steps = 500
    config.training.picture_every_steps = 500
    config.training.checkpoint_every_steps = 1000
    # Checkpoints kept on disk, the newest.
    config.training.keep_checkpoints = 3
    # Simulated examples, made from the held-out normals, of one validation.
    config.training.validation_examples = 128
    # Run directory whose newest networks the training starts from, with a fresh optimizer; empty: from random ones.
    config.training.warm_start = ''

    config.evaluation = ConfigDict()
    # Images per step over all devices.
    config.evaluation.batch_size = 16
    # Side in pixels of the window whose highest mean is the image score; odd. Official: 21 (at 256 px).
    config.evaluation.score_window = 21
    # Which pixels of a resized mask are defective: 'half' (> 0.5) or 'full' (only 1.0: official).
    config.evaluation.mask_rule = 'half'
    # Up to which false positive rate AUPRO is integrated; MVTec AD's convention: 0.3.
    config.evaluation.aupro_max_fpr = 0.3
    # Part of the normal images, and of their pixels, that may be taken for defective: sets the thresholds that the
    # held-out normals are calibrated for at the end of training (calibration.json). 0.05 takes 19 held-out images, 0.01
    # takes 99. Neither paper nor released code has a threshold.
    config.evaluation.target_fpr = 0.05
    config.evaluation.pixel_target_fpr = 0.001
    # Images on each picture sheet (best, worst, most doubtful).
    config.evaluation.sheet_rows = 8
    # Whether to write report/index.html: curves, and a picture of every test image (about 50 kB each at 256 px).
    config.evaluation.report = True
    return config
