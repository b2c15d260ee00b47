"""Tiny data sets on disk. Every image is of one grey, by which a test knows it again."""

import os

import numpy as np
import PIL.Image


def write_image(path, grey, *, size=(40, 36)):
    """Writes an RGB image of one grey; `size` is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(path)


def write_mask(path, *, size=(40, 36)):
    """Writes a mask whose upper half is defective."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2] = 255
    PIL.Image.fromarray(mask).save(path)


def draw_tree(root, *, train=8, good=3, scratched=4):
    """The layout of MVTec AD: greys count up from 0 in train/good, from 100 in test/good, from 200 in test/scratch."""
    for k in range(train):
        write_image(root / 'train' / 'good' / f'{k:03}.png', k)
    for k in range(good):
        write_image(root / 'test' / 'good' / f'{k:03}.png', 100 + k)
    for k in range(scratched):
        write_image(root / 'test' / 'scratch' / f'{k:03}.png', 200 + k)
        write_mask(root / 'ground_truth' / 'scratch' / f'{k:03}_mask.png')
    return root


def draw_textures(folder, count=5):
    """A folder of textures, in folders of their own: grey 10, 20, 30, ..."""
    for k in range(count):
        write_image(folder / f'kind_{k}' / f'{k:03}.png', 10 * (k + 1), size=(50, 50))
    return folder


def fill_disk(folder, leave=0):
    """Fills the file system of a folder, but for some bytes, with a file named 'filler'."""
    with (folder / 'filler').open('wb', buffering=0) as file:
        file.write(bytes(os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - leave))
