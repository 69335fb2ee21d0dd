r"""Layers as linear maps: dense, convolutions with their real stride and padding, transposed convolutions.

    convolution at its input size   =   a matrix, sparse and repetitive, that nobody writes down
    its adjoint                     =   the transposed convolution with the same weight

How far a convolution stretches its input depends on stride, padding, dilation, groups and the input's size.
The kernel alone, flattened to a matrix, knows none of them: the norm of that matrix is another number.

Source: circular convolutions: Sedghi, Gupta, Long, "The Singular Values of Convolutional Layers", ICLR 2019.
Lesson: notebooks/05_spectral.ipynb
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gaussreg_lab.linear_map import LinearMap, backward_through

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WITH_NORM = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}  # by the number of spatial axes
TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def layer_map(
    layer: nn.Module, input_size: Sequence[int] | None = None, weight: Tensor | None = None
) -> LinearMap:
    """The linear part of a Linear, convolution or transposed convolution, bias left out.

    input_size: spatial size of the layer's input, (length,), (height, width) or (depth, height, width);
    a convolution is another map at another size. None for Linear. weight: instead of the layer's own.
    Raises NotImplementedError for other layers, ValueError for an input_size missing or of another length.

    >>> conv = nn.Conv2d(1, 2, 3, stride=2, padding=1)
    >>> layer_map(conv, (8, 8)).forward(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 2, 4, 4])
    """
    shape = input_shape_of(layer, input_size)
    geometry = geometry_of(layer)
    weight = layer.weight.detach() if weight is None else weight
    return LinearMap(
        lambda x: apply_weight(geometry, weight, x),
        lambda y: apply_adjoint(geometry, weight, y, shape),
        shape,
    )


def circular_singular_values(layer: nn.Module, input_size: Sequence[int]) -> Tensor:
    """All singular values of a circular convolution of stride 1, one Fourier frequency at a time.

    Waves pass a circular convolution unchanged but for a small matrix (outputs, inputs) at each frequency,
    the kernel's Fourier transform. Returns all of them, unordered; its own padding is ignored. For zero
    padding the largest is close to the true norm, on either side; an upper bound if input_size is enlarged
    by the kernel's length less 1. For reflecting padding not even that.
    Raises NotImplementedError for a stride or other layers, ValueError as `layer_map`.

    >>> circular_singular_values(nn.Conv2d(1, 2, 3), (4, 4)).shape  # one for each of 4 x 4 frequencies
    torch.Size([16])
    """
    if not isinstance(layer, CONVOLUTIONS) or set(layer.stride) != {1}:
        raise NotImplementedError(f"Expected a convolution of stride 1, got {layer}")
    size = input_shape_of(layer, input_size)[1:]
    weight = layer.weight.detach()
    kernel = weight.new_zeros(*weight.shape[:2], *size)
    for tap in (
        torch.cartesian_prod(*[torch.arange(k) for k in layer.kernel_size]).reshape(-1, len(size)).tolist()
    ):
        place = [
            t * d % n for t, d, n in zip(tap, layer.dilation, size, strict=True)
        ]  # a long kernel wraps around
        kernel[(..., *place)] += weight[(..., *tap)]
    waves = torch.fft.fftn(kernel, dim=tuple(range(2, kernel.dim())))
    outputs, inputs = weight.shape[0] // layer.groups, weight.shape[1]
    of_groups = waves.reshape(layer.groups, outputs, inputs, -1).permute(0, 3, 1, 2)
    return torch.linalg.svdvals(of_groups).flatten()


def input_shape_of(layer: nn.Module, input_size: Sequence[int] | None) -> tuple[int, ...]:
    """Shape of one input of the layer, (features,) or (channels, *input_size); raises as `layer_map` says."""
    if isinstance(layer, nn.Linear):
        if input_size is not None:
            raise ValueError(f"Expected input_size None for Linear, got {tuple(input_size)}")
        return (layer.in_features,)
    if not isinstance(layer, WITH_NORM):
        known = ", ".join(kind.__name__ for kind in WITH_NORM)
        raise NotImplementedError(f"Expected one of {known}, got {type(layer).__name__}")
    axes = len(layer.kernel_size)
    if not isinstance(input_size, Sequence) or len(input_size) != axes or min(input_size) < 1:
        raise ValueError(
            f"Expected input_size of {axes} positive numbers, the spatial size of the input, on which "
            f"the norm of a {type(layer).__name__} depends; got {input_size}"
        )
    return (layer.in_channels, *input_size)


def geometry_of(layer: nn.Module) -> nn.Module:
    """A copy of the layer without weights: how it strides and pads, to be used with any weight.

    >>> geometry_of(nn.Conv2d(1, 2, 3, stride=2)).stride
    (2, 2)
    """
    kind = type(layer).__bases__[0] if parametrize.is_parametrized(layer) else type(layer)
    shell = kind.__new__(kind)
    nn.Module.__init__(shell)  # an empty module; what a layer knows beyond that are its settings
    for name in ("weight", "bias"):  # asked for by repr
        shell.register_parameter(name, None)
    shell.__dict__.update({name: it for name, it in vars(layer).items() if name not in vars(shell)})
    return shell


def apply_weight(geometry: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    """A x for the given weight, differentiable by both."""
    if isinstance(geometry, nn.Linear):
        return F.linear(x, weight)
    if isinstance(geometry, CONVOLUTIONS):
        return geometry._conv_forward(x, weight, None)
    settings = (
        geometry.stride,
        geometry.padding,
        geometry.output_padding,
        geometry.groups,
        geometry.dilation,
    )
    return TRANSPOSE[x.dim() - 2](x, weight, None, *settings)


def apply_adjoint(geometry: nn.Module, weight: Tensor, y: Tensor, input_shape: tuple[int, ...]) -> Tensor:
    """A' y for the given weight: a transposed convolution for a convolution, and the other way round.

    Padding that is not zeros, or is given in words, has no such partner: there a backward pass does it.
    """
    if isinstance(geometry, nn.Linear):
        return y @ weight
    axes, stride, padding, dilation = y.dim() - 2, geometry.stride, geometry.padding, geometry.dilation
    if isinstance(geometry, TRANSPOSED):
        back = CONVOLVE[axes](y, weight, None, stride, padding, dilation, geometry.groups)
        return back[(..., *[slice(n) for n in input_shape[1:]])]  # output_padding >= stride makes it longer
    if geometry.padding_mode != "zeros" or isinstance(padding, str):
        zeros = y.new_zeros(len(y), *input_shape)
        return backward_through(lambda x: apply_weight(geometry, weight, x), zeros, y)
    # strides pass over the last few pixels of some sizes: they have to come back as well
    passed_over = [
        (n + 2 * p - d * (k - 1) - 1) % s
        for n, p, d, k, s in zip(
            input_shape[1:], padding, dilation, geometry.kernel_size, stride, strict=True
        )
    ]
    return TRANSPOSE[axes](y, weight, None, stride, padding, passed_over, geometry.groups, dilation)
