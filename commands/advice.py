"""What to change in a config where a training finds no room for itself."""

from ml_collections import ConfigDict


def on_disk(config: ConfigDict) -> str:
    """What to do where there is no room for the files of the run."""
    return (
        'The checkpoints before it are whole. Make room there, for one checkpoint more than '
        f'--config.training.keep_checkpoints ({config.training.keep_checkpoints} now), and start again with the same '
        'flags to go on.'
    )


def on_memory(config: ConfigDict) -> str:
    """What to change where a device's memory is full."""
    training, (height, width) = config.training, config.dataset.image_size
    return (
        f'What takes less: a smaller --config.training.batch_size ({training.batch_size} now), a larger '
        f'--config.training.accumulation_slices ({training.accumulation_slices} now), --config.model.remat=True '
        f'({config.model.remat} now), a smaller --config.dataset.image_size ({height} x {width} now).'
    )
