"""What benchmarks.fuzz feeds to the scripts: random images, trees of folders, damaged runs, and values for flags."""

import io
import json
import pathlib
import random
import shutil

import numpy as np
import PIL.Image

_FOLDERS = (
    "train Train test Test good OK NG normal abnormal mask masks ground_truth scratch ü quote's 2024-01 .hidden run "
    'x=y a+b a,b %d *'
)
_ENDINGS = '.png .PNG .jpg .jpeg .bmp .tif .webp .gif .jfif .txt .json .png.png'
# Values of flags, few of which belong anywhere.
_NUMBERS = '0 -1 1 2 3 7 32 33 0.5 1.0 1e-9 1e400 1e308 nan inf -inf -0 111111111111111111111111111111'
_LITERALS = "None True false null (1,2) (32,) () [1] [] (0.5,) (0.9,0.1) ('a',) {} 'x' = a=1 seed=1 a,b 0.5,0.5"
_TEXTS = 'normal=x auto folder ü ~ ~nobody/x /dev/null /proc . .. / http://x/y gs: s3://b/c %s {0} $HOME * [ --'
VALUES = ['', ' ', '\udcff', 'x' * 300, 'x/' * 50, *f'{_NUMBERS} {_LITERALS} {_TEXTS}'.split()]


def write_image(path: pathlib.Path, seed: int, *, is_mask: bool = False) -> None:
    """Writes an image of noise, or a mask with a square defect."""
    array = np.random.default_rng(seed).integers(0, 256, (40, 36, 3)).astype(np.uint8)
    if is_mask:
        array = np.zeros((40, 36), np.uint8)
        array[10:20, 10:20] = 255
    PIL.Image.fromarray(array).save(path)


def draw_bytes(chance: random.Random) -> bytes:
    """The content of a file: mostly a small image of some kind, sometimes one that is damaged, or something else."""
    size = (chance.choice([1, 2, 33, 40]), chance.choice([1, 31, 40]))
    levels = np.random.default_rng(chance.randrange(2**32)).integers(0, 256, (*size, 3))
    mode = chance.choice(['RGB', 'RGB', 'L', 'RGBA', 'LA', 'P', '1', 'CMYK', 'I;16', 'F'])
    picture = PIL.Image.fromarray(levels.astype(np.uint8))
    if mode == 'I;16':
        picture = PIL.Image.fromarray((levels[..., 0] * chance.choice([1, 16, 257])).astype(np.uint16))
    elif mode == 'F':
        picture = PIL.Image.fromarray(levels[..., 0].astype(np.float32))
    else:
        picture = picture.convert(mode)
    file = io.BytesIO()
    try:
        picture.save(file, chance.choice(['PNG', 'PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP', 'GIF']))
    except (OSError, KeyError, ValueError):  # Not every format holds every mode.
        picture.convert('RGB').save(file, 'PNG')
    data = file.getvalue()
    return data if chance.random() < 0.8 else damage(data, chance)


def damage(data: bytes, chance: random.Random) -> bytes:
    """Cut short, with random bytes in it, emptied, or something else altogether."""
    way = chance.randrange(6)
    if way == 0 or not data:
        return chance.randbytes(chance.choice([0, 1, 10, 1000]))
    if way == 1:
        return data[: chance.randrange(len(data))]
    if way == 2:
        return b''
    changed = bytearray(data)
    for _ in range(1 if way == 3 else chance.randrange(1, 1 + max(1, len(data) // 4))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def draw_tree(root: pathlib.Path, chance: random.Random) -> None:
    """Random folders and files, every other time beside those of a layout that is right."""
    root.mkdir(parents=True)
    folders = [root]
    if chance.random() < 0.5:
        for name in ('train/good', 'test/good', 'test/scratch', 'ground_truth/scratch'):
            folders.append(root / name)
            folders[-1].mkdir(parents=True)
            for k in range(12 if name == 'train/good' else 2):
                write_image(folders[-1] / f'{k}.png', chance.randrange(2**32), is_mask='truth' in name)
    for _ in range(chance.randrange(8)):
        folders.append(chance.choice(folders) / chance.choice(_FOLDERS.split()))
    for _ in range(chance.randrange(20)):
        folder = chance.choice(folders)
        stem = f'{chance.randrange(4)}{chance.choice(["", "", "", "", "_mask", "_gt"])}'
        path = folder / f'{stem}{chance.choice(_ENDINGS.split()[: 4 if chance.random() < 0.7 else None])}'
        if not path.exists() and not any(parent.is_file() for parent in path.parents):
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw_bytes(chance))
    if chance.random() < 0.1 and folders[-1].exists():
        (folders[-1] / 'loop').symlink_to(root)
    if chance.random() < 0.1:
        (root / 'gone.png').symlink_to(root / 'nowhere.png')


def draw_value(chance: random.Random) -> object:
    """A JSON value, of which few belong where they are put."""
    choices = [None, True, 0, -1, 7, 0.5, 1e300, 10**30, '', 'x', '0.5', [], [1], ['a'], {}, {'x': 1}, float('nan')]
    return chance.choice(choices)


def spoil_json(text: str, chance: random.Random) -> str:
    """JSON with a value replaced, removed, or added."""
    document = json.loads(text)
    place, parents = document, []
    while isinstance(place, dict | list) and place:
        key = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
        parents.append((place, key))
        place = place[key]
        if chance.random() < 0.3:
            break
    if not parents:
        return json.dumps(draw_value(chance))
    holder, key = chance.choice(parents)
    if chance.random() < 0.3 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = draw_value(chance)
    return json.dumps(document)


def spoil_run(run: pathlib.Path, chance: random.Random) -> None:
    """Damages one to three of a run's files or folders."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        paths = sorted(path for path in run.rglob('*') if path.is_file())
        names = [path for path in paths if path.suffix in ('.json', '.jsonl') and 'checkpoints' not in path.parts]
        path = chance.choice(names if chance.random() < 0.7 else paths)
        way = chance.random()
        if way < 0.15:
            path.unlink()
            if chance.random() < 0.5:
                path.mkdir()
        elif way < 0.25 and path.parent != run:
            shutil.rmtree(path.parent)
            if chance.random() < 0.5:
                path.parent.write_bytes(chance.randbytes(20))
        elif way < 0.7 and path in names:
            try:
                lines = path.read_text().splitlines() if path.suffix == '.jsonl' else [path.read_text()]
                line = chance.randrange(len(lines))
                lines[line] = spoil_json(lines[line], chance)
                path.write_text('\n'.join(lines) + '\n')
            except (ValueError, IndexError):  # Damaged before.
                path.write_bytes(damage(path.read_bytes(), chance))
        else:
            path.write_bytes(damage(path.read_bytes(), chance))
