"""Every setting, with its unit and its source.

    python train.py --config=configs/default.py --config.dataset.root=FOLDER \
        --config.dataset.texture_root=TEXTURES --workdir=RUN

Other experiments start from here and change what differs. The values are those of the authors' released code
(`official`), except in six places where we deviate on purpose: colours are RGB, not BGR; the brightness operation
always works on the luma; SSIM's dynamic range is 1 (loss.guess_range brings the guess back); the focal loss has no
smoothing; ground truth is what exceeds one half (evaluation.mask_rule); and everything random has a seed.
The argument `paper` (configs/default.py:paper) takes the values printed in the paper wherever the released code
deviates from it; where the paper is silent, `paper` is `official`.

References:
    Zavrtanik, Kristan, Skocaj, DRAEM, ICCV 2021 ("paper"); the authors' released code and weights ("official").
"""

from ml_collections import ConfigDict

PRESETS = ('official', 'paper')

# The operations that change textures. The paper names all but three of them; it calls `hue_saturation` colour.
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


def get_config(arg: str = 'official') -> ConfigDict:
    """`arg` is 'official' or 'paper'."""
    preset = arg or 'official'
    if preset not in PRESETS:
        raise ValueError(f'configs/default.py:{preset}: expected one of {", ".join(PRESETS)} after the colon.')
    config = ConfigDict()

    config.dataset = ConfigDict()
    # A builder of data/sets/: folder, mvtec_ad, simulated, ...
    config.dataset.name = 'folder'
    # One object of the data set, such as 'bottle'. Several ('bottle,screw') or 'all' of them make one model for all.
    # For `folder`: a folder below root, or empty.
    config.dataset.category = ''
    # Options of the builder, which data/README.md lists: 'name=value', separated by commas, such as
    # 'normal=ok,defects=ng,masks=labels' for `folder` or 'split=2cls_highshot' for `visa`.
    config.dataset.options = ''
    # Folder of the data set; data/README.md says which one.
    config.dataset.root = ''
    # Every image is resized to this (height, width), in pixels, multiples of 32. Official and paper: 256.
    config.dataset.image_size = (256, 256)
    # Average over the source's pixels when an image shrinks. Official: False, plain bilinear interpolation.
    config.dataset.antialias = False
    # How many bits the values of 16-bit files have, 9 to 16: cameras of 10, 12 or 14 bits write such files, and read as
    # 16 bits they are nearly black. 0: 16. Files of 8 bits are read as they are.
    config.dataset.bit_depth = 0
    # Part of the normal training images that is kept out of training, to watch it with simulated anomalies; in [0, 1).
    config.dataset.validation_fraction = 0.0
    # Part of the normal training images that is kept for the test if the data set has no normal test images; in [0, 1).
    # Where it has no defective ones either, anomalies are simulated on them. 0: no test.
    config.dataset.test_fraction = 0.0
    # Skip, name and count the training images and textures that cannot be read. Test images are never skipped.
    config.dataset.skip_unreadable = False
    # What is pasted as an anomaly: 'folder' (any images, however nested; official: the 5640 of DTD), 'dtd' (DTD as TFDS
    # keeps it), 'procedural' (drawn, if nothing can be downloaded), 'colour' (one plain colour per example, an ablation
    # of the paper), or 'self' (patches of other normal images).
    config.dataset.texture_source = 'folder'
    # Data set with real defects to train on besides, as MVTec AD lays it out or any way that `folder` reads; only its
    # defective images with masks are taken. It must not be the test. Empty: none.
    config.dataset.defect_root = ''
    # Folder of the texture images. For 'dtd': TFDS's data folder, or empty for its default.
    config.dataset.texture_root = ''
    # How many textures to use at most. 0: all there are, or 512 procedural ones.
    config.dataset.texture_count = 0
    # Where decoded images and textures are kept: 'memory', 'disk' (one memory-mapped file, made once, if memory is too
    # small), or 'none' (decoded for each example). The examples are the same.
    config.dataset.cache = 'memory'
    # Folder for the files of 'disk'. Empty: draem_jax/images in the user's cache folder.
    config.dataset.cache_folder = ''
    # How much 'memory' may take, in GB of 10^9 bytes; 10,000 images of 256 x 256 take 2.
    config.dataset.cache_limit_gb = 8.0

    # How a training example is made; the official values are the defaults of data.synthesis.example.make_example.
    paper = preset == 'paper'
    config.synthesis = ConfigDict()
    # Probability of pasting an anomaly at all; paper and official: 0.5.
    config.synthesis.anomaly_probability = 0.5
    # Probability of rotating the normal image, and largest angle (degrees, either way). Official: 90, paper: 45.
    config.synthesis.rotation_probability = 0.3
    config.synthesis.rotation_degrees = 45.0 if paper else 90.0
    # What the corners hold that a rotation uncovers: 'black' (official), or 'mirror', the image mirrored at its border.
    config.synthesis.rotation_fill = 'black'
    # For parts that look the same from all sides: turn each image by a random multiple of 90 degrees (180, if it is not
    # square); mirror half of them left to right, and half top to bottom. Official and paper: neither.
    config.synthesis.quarter_turns = False
    config.synthesis.flips = False
    # Lowest and highest share of the texture inside the mask. Official: from 0.2, paper: from 0.1.
    config.synthesis.opacity = (0.1, 1.0) if paper else (0.2, 1.0)
    # A texture is changed by this many different ones of the operations, in random order; 0 for none.
    config.synthesis.operations = PAPER_OPERATIONS if paper else OPERATIONS
    config.synthesis.operation_count = 3
    # Probability that an anomaly is a patch of another normal image, pasted as it is, and no texture: a defect that
    # looks nearly normal, as CAF and FAIR (Liu et al., 2023) paste them. Official and paper: 0.
    config.synthesis.normal_patch_probability = 0.0
    # Probability that an anomaly is one of the real defects of dataset.defect_root. Official and paper: 0.
    config.synthesis.real_defect_probability = 0.0
    # Shape of the anomalies: 'perlin', 'simplex' (another noise), 'rectangle', or 'union' (of two Perlin masks).
    config.synthesis.mask_source = 'perlin'
    # The mask is where the noise exceeds a threshold drawn from this range. Official: 0.5; the paper gives no range.
    config.synthesis.mask_threshold = (0.2, 0.7) if paper else (0.5, 0.5)
    # The noise has 2^k cells along each side, k uniform from 0 to this maximum.
    config.synthesis.max_cells_log2 = 5
    # k begins here: 1 or 2 leave out the coarsest noise, whose anomalies cover most of a side. Official and paper: 0.
    config.synthesis.min_cells_log2 = 0
    # A cell is at least this many pixels wide and high, which lowers the maximum on images below 64 pixels. Noise is 0
    # where its cells meet, so cells of one pixel would be empty. Official: no bound, which is the same from 64 px on.
    config.synthesis.min_cell_size = 2
    # Largest rotation of the noise, in degrees, either way; official: 90.
    config.synthesis.mask_rotation_degrees = 90.0
    # Paste only the luma of a texture into images without colour, where colour would give it away. Official: False.
    config.synthesis.match_grey = False
    # For objects in front of a plain background: anomalies lie only where the image differs from the background's
    # colour by more than this many levels of 255. 0: anywhere. Official and paper: 0.
    config.synthesis.foreground_threshold = 0
    # Pixels that an anomaly changes by less than this many levels of 255 leave its mask, after JNLD (Guo et al., ICME
    # 2022). 0: none leaves, as in official and paper.
    config.synthesis.label_correction = 0

    config.model = ConfigDict()
    # Channels of the first stage of each network; official: 128 and 64.
    config.model.reconstructive_width = 128
    config.model.discriminative_width = 64
    # Type of the activations: float32, bfloat16, or auto, which is bfloat16 on accelerators and float32 on a CPU.
    config.model.dtype = 'auto'
    # Keep only the inputs of every block of a network and compute the rest again in the backward pass: larger images or
    # batches fit, but a step takes longer. benchmarks/README.md says by how much.
    config.model.remat = False
    # 'both'; or one alone, as in the paper's table 3: 'discriminative', which sees the image only, or 'reconstructive'.
    config.model.networks = 'both'
    # What the anomaly map is: 'segmentation', or how unlike the image its reconstruction is: 'ssim' or 'msgms'.
    config.model.anomaly_map = 'segmentation'
    # What convolutions see beyond the border: 'zeros' (official), or 'reflect', the image mirrored.
    config.model.padding = 'zeros'
    # Probability of an anomaly that the discriminative network starts from. Official: 0.5. A low one, such as the 0.01
    # of the focal loss's authors, keeps the map of narrow networks from ending at 0.55 (networks.prior_bias).
    config.model.anomaly_prior = 0.5
    # The discriminative network also sees |image - reconstruction|, after DiffAD (Zhang et al., ICCV 2023).
    config.model.sees_difference = False
    # Sigma in pixels of the Gaussian mean that is taken from the reconstructive network's input, after FAIR, whose
    # filters differ. 0: it sees the image as it is.
    config.model.high_pass_sigma = 0.0

    config.loss = ConfigDict()
    # Weights of the three parts; paper and official: 1.
    config.loss.l2 = 1.0
    config.loss.ssim = 1.0
    config.loss.focal = 1.0
    # Weight of the loss between edges at four scales, MSGMS, for networks='reconstructive'. 0: none.
    config.loss.msgms = 0.0
    # Weight of the mean distance between map and mask, after DeSTSeg (Zhang et al., CVPR 2023). Official: 0.
    config.loss.mask_l1 = 0.0
    # Focusing exponent of the focal loss; official: 2.
    config.loss.gamma = 2.0
    # Guess SSIM's dynamic range from each batch as the authors' code does; otherwise the range is always 1.
    config.loss.guess_range = False

    config.optimizer = ConfigDict()
    # Adam's step size; paper and official: 1e-4.
    config.optimizer.learning_rate = 1e-4
    # 'steps': decay_factor at decay_at (official and paper); or 'cosine': down to 0 along half a cosine.
    config.optimizer.schedule = 'steps'
    # The rate is multiplied by this factor at each of the fractions of the run in decay_at. Paper: after 400 and 600 of
    # 700 epochs.
    config.optimizer.decay_factor = 0.1 if paper else 0.2
    config.optimizer.decay_at = (400 / 700, 600 / 700) if paper else (0.8, 0.9)
    # Steps at the start in which the rate rises linearly from 0; official: none.
    config.optimizer.warmup_steps = 0

    config.training = ConfigDict()
    # Seed of the initial weights and of every training example.
    config.training.seed = 0
    # Examples per step over all devices; official: 8.
    config.training.batch_size = 8
    # Cut each device's examples into this many slices and take them one after the other: a step needs the memory of one
    # slice and has the gradient of all. But batch statistics are those of a slice (over all devices), so the number of
    # slices changes the training.
    config.training.accumulation_slices = 1
    # Evaluate moving averages of the parameters and of the running statistics: after each step they keep this part of
    # themselves, such as 0.999. 0: the newest values, as in official and paper.
    config.training.ema_decay = 0.0
    # Length in epochs of ceil(images / batch_size) steps; paper and official: 700.
    config.training.epochs = 700
    # Length in steps; if it is not 0, it replaces epochs.
    config.training.steps = 0
    # Steps between two log lines, validations, TensorBoard pictures, checkpoints. 0: only at the end.
    config.training.log_every_steps = 50
    config.training.validate_every_steps = 500
    config.training.picture_every_steps = 500
    config.training.checkpoint_every_steps = 1000
    # How many checkpoints are kept on disk: the newest ones.
    config.training.keep_checkpoints = 3
    # How many examples a validation simulates on the held-out normals.
    config.training.validation_examples = 128
    # Run directory: training starts from its newest networks, with a fresh optimizer. Empty: from random networks.
    config.training.warm_start = ''

    config.evaluation = ConfigDict()
    # Images per step over all devices.
    config.evaluation.batch_size = 16
    # The image score is the highest mean of a window with this side, in pixels; odd. Official: 21 (at 256 px).
    config.evaluation.score_window = 21
    # The image score is the mean over this part of the pixels, those whose windows are highest; in [0, 1]. 0: the
    # highest window alone (official).
    config.evaluation.score_top = 0.0
    # Which pixels of a resized mask are defective: 'half' (> 0.5) or 'full' (only 1.0: official).
    config.evaluation.mask_rule = 'half'
    # AUPRO is integrated up to this false positive rate; MVTec AD's convention: 0.3.
    config.evaluation.aupro_max_fpr = 0.3
    # Part of the normal images, and of their pixels, that may be called defective. At the end of training the held-out
    # normals set the thresholds for it (calibration.json). 0.05 needs 19 held-out images, 0.01 needs 99. Neither paper
    # nor released code has a threshold.
    config.evaluation.target_fpr = 0.05
    config.evaluation.pixel_target_fpr = 0.001
    # How many images each picture sheet shows (best, worst, most doubtful).
    config.evaluation.sheet_rows = 8
    # Write report/index.html: curves and a picture of every test image (about 50 kB each at 256 px).
    config.evaluation.report = True
    return config
