"""DRAEM in PyTorch, which `train_step` and `inference` compete with: the same networks, losses, optimizer, outputs.

Written as a PyTorch user would write it well: channels first, convolutions without a bias in front of a normalisation,
ReLU in place, the Gaussian means of SSIM as one separable grouped convolution over all maps, the focal loss from
log_softmax, Adam fused, batches in pinned memory. It runs in an environment of its own, with torch and NumPy and
nothing of ours but serving.py, and answers the requests that benchmarks/ours.py lists.

A variant is float32, tf32 (float32 with matrix products in TF32) or bfloat16 (autocast), then, as wanted,
+channels_last and +compile.
"""

import argparse
import resource
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import serving


def conv_block(in_width, *widths):
    """Convolution 3x3, batch normalisation and ReLU, once for each of the widths."""
    layers = []
    for width in widths:
        layers += [nn.Conv2d(in_width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        in_width = width
    return nn.Sequential(*layers)


def upsample2x(x):
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)


class Reconstructive(nn.Module):
    """[B, 3, H, W] -> [B, 3, H, W]."""

    def __init__(self, w):
        super().__init__()
        widths = (w, 2 * w, 4 * w, 8 * w, 8 * w)
        self.encoder = nn.ModuleList(conv_block(a, b, b) for a, b in zip((3, *widths), widths))  # noqa: B905
        layers, x = [], 8 * w
        for width, next_width in ((8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w), (w, w)):
            layers += [conv_block(x, width), conv_block(width, width, next_width)]
            x = next_width
        self.decoder = nn.ModuleList(layers)
        self.output = nn.Conv2d(w, 3, 3, padding=1)

    def forward(self, x):
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
        for widen, block in zip(self.decoder[::2], self.decoder[1::2], strict=True):
            x = block(widen(upsample2x(x)))
        return self.output(x)


class Discriminative(nn.Module):
    """[B, 6, H, W] -> logits [B, 2, H, W]."""

    def __init__(self, w):
        super().__init__()
        widths = (w, 2 * w, 4 * w, 8 * w, 8 * w, 8 * w)
        self.encoder = nn.ModuleList(conv_block(a, b, b) for a, b in zip((6, *widths), widths))  # noqa: B905
        layers, x = [], 8 * w
        for width, skip in zip((8 * w, 4 * w, 2 * w, w, w), reversed(widths[:-1]), strict=True):
            layers += [conv_block(x, width), conv_block(width + skip, width, width)]
            x = width
        self.decoder = nn.ModuleList(layers)
        self.output = nn.Conv2d(w, 2, 3, padding=1)

    def forward(self, x):
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for widen, block in zip(self.decoder[::2], self.decoder[1::2], strict=True):
            x = block(torch.cat([widen(upsample2x(x)), skips.pop()], 1))
        return self.output(x)


class Draem(nn.Module):
    """[B, 3, H, W] -> reconstruction [B, 3, H, W], logits [B, 2, H, W]."""

    def __init__(self, widths):
        super().__init__()
        self.reconstructive, self.discriminative = Reconstructive(widths[0]), Discriminative(widths[1])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1, 0.02)

    def forward(self, image):
        reconstruction = self.reconstructive(image)
        return reconstruction, self.discriminative(torch.cat([reconstruction, image], 1))


def gaussian_window(channels, device):
    taps = torch.exp(-((torch.arange(11, dtype=torch.float32, device=device) - 5) ** 2) / (2 * 1.5**2))
    return (taps / taps.sum()).repeat(channels, 1, 1, 1)  # [channels, 1, 1, 11]


def ssim_loss(a, b, window):
    """1 - mean SSIM of two [B, C, H, W]; window [C, 1, 1, 11]."""
    channels = a.shape[1]
    maps = torch.cat([a, b, a * a, b * b, a * b])
    maps = F.conv2d(maps, window, padding=(0, 5), groups=channels)
    maps = F.conv2d(maps, window.transpose(2, 3), padding=(5, 0), groups=channels)
    mu_a, mu_b, mean_aa, mean_bb, mean_ab = maps.chunk(5)
    c1, c2 = 0.01**2, 0.03**2
    variances, covariance = mean_aa - mu_a**2 + mean_bb - mu_b**2, mean_ab - mu_a * mu_b
    top = (2 * mu_a * mu_b + c1) * (2 * covariance + c2)
    return 1 - (top / ((mu_a**2 + mu_b**2 + c1) * (variances + c2))).mean()


def focal_loss(logits, mask):
    """Gamma 2; logits [B, 2, H, W], mask [B, H, W] of class indices."""
    log_p = F.log_softmax(logits, 1).gather(1, mask[:, None])
    return -((1 - log_p.exp()) ** 2 * log_p).mean()


def losses(reconstruction, logits, image, mask, window):
    parts = {
        'l2': F.mse_loss(reconstruction, image),
        'ssim': ssim_loss(reconstruction, image, window),
        'focal': focal_loss(logits, mask),
    }
    return {'loss': sum(parts.values()), **parts}


class Side:
    """Answers the requests, each with the method of its name."""

    def __init__(self, size, widths, batch, variant):
        words = variant.split('+')
        self._cuda = torch.cuda.is_available()
        self._device = 'cuda' if self._cuda else 'cpu'
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = 'float32' not in words
        torch.backends.cudnn.benchmark = True
        self._autocast = 'bfloat16' in words
        self._format = torch.channels_last if 'channels_last' in words else torch.contiguous_format
        self._model = Draem(widths).to(self._device, memory_format=self._format)
        self._call = torch.compile(self._model) if 'compile' in words else self._model
        self._optimizer = torch.optim.Adam(self._model.parameters(), 1e-4, fused=True)
        self._window = gaussian_window(3, self._device)
        self._score_window = max(1, round(21 * size / 256) // 2 * 2 + 1)
        random = np.random.default_rng(0)
        image = torch.from_numpy(random.integers(0, 256, (batch, 3, size, size), np.uint8))
        mask = torch.zeros((batch, size, size), dtype=torch.uint8)
        mask[::2, size // 4 : size // 2, size // 4 : size // 2] = 1
        self._batch = {'image': image, 'augmented': torch.where(mask[:, None] > 0, 255 - image, image), 'mask': mask}
        if self._cuda:  # As a DataLoader with pin_memory=True gives them: they travel while the card computes.
            self._batch = {name: tensor.pin_memory() for name, tensor in self._batch.items()}

    def describe(self):
        return {
            'parameters': sum(parameter.numel() for parameter in self._model.parameters()),
            'versions': f'torch {torch.__version__}',
            'threads': torch.get_num_threads(),
        }

    def warm_up(self, work, count):
        start = time.perf_counter()
        getattr(self, work)(count)
        return {'seconds': time.perf_counter() - start}

    def train(self, count):
        self._step()
        self._wait()
        start = time.perf_counter()
        for _ in range(int(count)):
            parts = self._step()
        self._wait()
        seconds = (time.perf_counter() - start) / int(count)
        return {'seconds': seconds, 'loss': float(parts['loss'])}

    def predict(self, count):
        self._outputs()
        start = time.perf_counter()
        for _ in range(int(count)):
            self._outputs()
        return {'seconds': (time.perf_counter() - start) / int(count)}

    def losses(self, path):
        file = np.load(path)
        weights = [file[name] for name in sorted(file.files) if name.startswith('weight_')]
        with torch.no_grad():
            for parameter, value in zip(self._model.parameters(), weights, strict=True):
                parameter.copy_(torch.from_numpy(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value))
        for name in ('image', 'augmented'):
            self._batch[name] = torch.from_numpy(file[name].transpose(0, 3, 1, 2).copy())
        self._batch['mask'] = torch.from_numpy(file['mask'][..., 0])
        steps = [{name: float(value) for name, value in self._step().items()} for _ in range(3)]
        return {'losses': steps, 'map_mean': float(self._outputs()['map'].mean())}

    def memory(self):
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {'peak_mb': (torch.cuda.max_memory_allocated() if self._cuda else resident) / 1e6}

    def _step(self):
        self._model.train()
        image, augmented = self._images('image'), self._images('augmented')
        mask = self._batch['mask'].to(self._device, non_blocking=True).long()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device, torch.bfloat16, enabled=self._autocast):
            reconstruction, logits = self._call(augmented)
        parts = losses(reconstruction.float(), logits.float(), image, mask, self._window)
        parts['loss'].backward()
        self._optimizer.step()
        return {name: value.detach() for name, value in parts.items()}

    def _outputs(self):
        self._model.eval()
        with torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=self._autocast):
            reconstruction, logits = self._call(self._images('augmented'))
            maps = logits.float().softmax(1)[:, 1]
            half = self._score_window // 2
            means = F.avg_pool2d(maps[:, None], self._score_window, 1, half, count_include_pad=True)
            visible = (255 * reconstruction.float().clamp(0, 1)).round().to(torch.uint8)
            outputs = {'reconstruction': visible, 'map': maps, 'score': means.amax((1, 2, 3))}
            return {name: value.cpu().numpy() for name, value in outputs.items()}

    def _images(self, name):
        images = self._batch[name].to(self._device, non_blocking=True)
        return images.to(torch.float32, memory_format=self._format) / 255

    def _wait(self):
        if self._cuda:
            torch.cuda.synchronize()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=int, required=True)
    parser.add_argument('--widths', required=True)
    parser.add_argument('--batch', type=int, required=True)
    parser.add_argument('--variant', default='float32')
    parser.add_argument('--threads', type=int, default=0, help='of a CPU; 0: as many as PyTorch chooses')
    flags = parser.parse_args()
    if flags.threads:
        torch.set_num_threads(flags.threads)
    side = Side(flags.size, tuple(map(int, flags.widths.split('/'))), flags.batch, flags.variant)
    serving.serve(lambda request, *words: getattr(side, request)(*words))


if __name__ == '__main__':
    main()
