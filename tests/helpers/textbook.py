"""The networks written out as their papers state them, slowly, in float64, to hold ours against; nothing of ours used.

One kernel a sample, zeros put between pixels, filters as full 2-D kernels, every sum in the order of the formulas.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def fir(x: Tensor, kernel: Tensor, up: int, down: int, padding: tuple[int, int]) -> Tensor:
    """x [N,C,h,w]: zeros between the pixels, padding (low, high; negative crops), true convolution, every down-th."""
    n, c, h, w = x.shape
    y = x.new_zeros(n, c, h * up, w * up)
    y[:, :, ::up, ::up] = x
    y = F.pad(y, (*padding, *padding))
    kernel = torch.outer(kernel, kernel) if kernel.ndim == 1 else kernel
    y = F.conv2d(y.reshape(n * c, 1, *y.shape[2:]), kernel.flip((0, 1))[None, None].to(y) * up**2)
    return y[:, :, ::down, ::down].reshape(n, c, *y[:, :, ::down, ::down].shape[2:])


def linear(layer, x: Tensor, lr: float = 1.0) -> Tensor:
    """An equalised layer, without activation."""
    return x @ (layer.weight.double() * lr / math.sqrt(layer.weight.shape[1])).T + layer.bias.double() * lr


def leaky(x: Tensor, clamp: float | None, gain: float = 1.0) -> Tensor:
    x = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2) * gain
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def styled_conv(conv, x: Tensor, w: Tensor, clamp: float | None, gain: float = 1.0) -> Tensor:
    """StyleGAN2's: demodulated kernel of each sample, twice the size where `conv.up`, noise, bias, leaky ReLU."""
    kernel = conv.weight.double()[None] * linear(conv.affine, w)[:, None, :, None, None]  # [N, O, I, 3, 3]
    kernel = kernel / (kernel.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
    rows = []
    for i in range(len(x)):
        if conv.up:
            # The gradient of a strided convolution: each input pixel adds a whole kernel at twice its place.
            y = F.conv_transpose2d(x[i : i + 1], kernel[i].transpose(0, 1), stride=2)
            taps = conv.resample_filter.shape[-1]
            rows.append(4 * fir(y, conv.resample_filter.double(), 1, 1, ((taps + 1) // 2 - 1, (taps - 2) // 2)))
        else:
            rows.append(F.conv2d(x[i : i + 1], kernel[i], padding=1))
    x = torch.cat(rows)
    if conv.noise_const is not None:
        x = x + conv.noise_const.double() * conv.noise_strength.double()
    return leaky(x + conv.bias.double().view(1, -1, 1, 1), clamp, gain)


def to_rgb(layer, x: Tensor, w: Tensor, clamp: float | None) -> Tensor:
    style = linear(layer.affine, w) / math.sqrt(x.shape[1])
    x = torch.einsum("nchw,nc,oc->nohw", x, style, layer.weight.double()[:, :, 0, 0])
    x = x + layer.bias.double().view(1, -1, 1, 1)
    return x if clamp is None else x.clamp(-clamp, clamp)


def grow(x: Tensor, kernel: Tensor) -> Tensor:
    """An image at twice its size."""
    taps = kernel.shape[-1]
    return fir(x, kernel.double(), 2, 1, ((taps + 1) // 2, (taps - 2) // 2))


def stylegan2(g, ws: Tensor) -> tuple[Tensor, list[Tensor]]:
    """(image, activations) of a StyleGAN2 of any architecture, with its stored noise."""
    ws, taps, slot, image, config = ws.double(), [], 0, None, g.config
    for r in config.resolutions:
        block, clamp = getattr(g.synthesis, f"b{r}"), config.conv_clamp
        residual = config.architecture == "resnet" and r > 4
        if r == 4:
            x = block.const.double()[None].repeat(len(ws), 1, 1, 1)
        if residual:
            weight = block.skip.weight.double() / math.sqrt(x.shape[1])
            y = grow(F.conv2d(x, weight), block.skip.resample_filter) * math.sqrt(0.5)
        for name in ("conv0", "conv1")[r == 4 :]:
            gain = math.sqrt(0.5) if residual and name == "conv1" else 1.0
            x = styled_conv(getattr(block, name), x, ws[:, slot], clamp, gain)
            slot += 1
            taps.append(x)
        x = x + y if residual else x
        image = None if image is None else grow(image, block.resample_filter)
        if config.architecture == "skip" or r == config.resolution:
            rgb = to_rgb(block.torgb, x, ws[:, slot], clamp)
            image = rgb if image is None else image + rgb
    return image, taps


def fourier_input(module, w: Tensor) -> Tensor:
    """StyleGAN3's input for one w [1,w_dim], pixel by pixel → [C,size,size]."""
    t = linear(module.affine, w.double())[0].numpy()
    t = t / np.hypot(t[0], t[1])
    turn = np.array([[t[0], -t[1], 0], [t[1], t[0], 0], [0, 0, 1]])
    shift = np.array([[1, 0, -t[2]], [0, 1, -t[3]], [0, 0, 1]])
    total = turn @ shift @ module.transform.double().numpy()
    frequencies, phases = module.freqs.double().numpy(), module.phases.double().numpy()
    phases = phases + frequencies @ total[:2, 2]
    frequencies = frequencies @ total[:2, :2]
    norm = np.linalg.norm(frequencies, axis=1)
    fade = np.clip(1 - (norm - module.bandwidth) / (module.rate / 2 - module.bandwidth), 0, 1)
    out = np.empty((len(phases), module.size, module.size))
    for row in range(module.size):
        for column in range(module.size):
            place = (np.array([column, row]) + 0.5 - module.size / 2) / module.rate
            out[:, row, column] = np.sin(2 * np.pi * (frequencies @ place + phases)) * fade
    weight = module.weight.double().numpy() / math.sqrt(len(phases))
    return torch.from_numpy(np.einsum("oc,chw->ohw", weight, out))


def stylegan3_layer(layer, x: Tensor, w: Tensor) -> Tensor:
    """One layer as the official code has it: styles normalised over the whole batch."""
    c, weight, style = layer.layer, layer.weight.double(), linear(layer.affine, w.double())
    if c.torgb:
        style = style / math.sqrt(x.shape[1] * c.kernel**2)
    else:
        weight = weight / weight.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        style = style / style.square().mean().sqrt()
    kernel = weight[None] * style[:, None, :, None, None]
    if not c.torgb:
        kernel = kernel / (kernel.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
    kernel = kernel / layer.magnitude_ema.double().sqrt()
    x = torch.cat([F.conv2d(x[i : i + 1].double(), kernel[i], padding=c.kernel - 1) for i in range(len(x))])
    x = x + layer.bias.double().view(1, -1, 1, 1)
    if c.torgb:
        return x.clamp(-c.clamp, c.clamp)
    one = torch.ones(1, dtype=torch.float64)
    x = fir(x, one if layer.up_filter is None else layer.up_filter.double(), c.up, 1, c.padding)
    x = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)
    x = x if c.clamp is None else x.clamp(-c.clamp, c.clamp)
    return fir(x, one if layer.down_filter is None else layer.down_filter.double(), 1, c.down, (0, 0))
