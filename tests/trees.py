"""Tiny data sets on disk. Every image has one grey of its own, by which a test recognises it."""

import os
import pathlib

import numpy as np
import PIL.Image


def write_image(path: pathlib.Path, grey: int, *, size: tuple[int, int] = (40, 36)) -> None:
    """Writes an RGB image of one grey; `size` is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(path)


def write_mask(path: pathlib.Path, *, size: tuple[int, int] = (40, 36)) -> None:
    """Writes a mask whose upper half is defective."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2] = 255
    PIL.Image.fromarray(mask).save(path)


def draw_tree(root: pathlib.Path, *, train: int = 8, good: int = 3, scratched: int = 4) -> pathlib.Path:
    """The layout of MVTec AD: greys count up from 0 in train/good, from 100 in test/good, from 200 in test/scratch."""
    for k in range(train):
        write_image(root / 'train' / 'good' / f'{k:03}.png', k)
    for k in range(good):
        write_image(root / 'test' / 'good' / f'{k:03}.png', 100 + k)
    for k in range(scratched):
        write_image(root / 'test' / 'scratch' / f'{k:03}.png', 200 + k)
        write_mask(root / 'ground_truth' / 'scratch' / f'{k:03}_mask.png')
    return root


def draw_textures(folder: pathlib.Path, count: int = 5) -> pathlib.Path:
    """A folder of textures, in folders of their own: grey 10, 20, 30, ..."""
    for k in range(count):
        write_image(folder / f'kind_{k}' / f'{k:03}.png', 10 * (k + 1), size=(50, 50))
    return folder


def fill_disk(folder: pathlib.Path, leave: int = 0) -> None:
    """Fills the file system of a folder with a file named 'filler', and leaves `leave` bytes free."""
    with (folder / 'filler').open('wb', buffering=0) as file:
        file.write(bytes(os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - leave))
