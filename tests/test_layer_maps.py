"""Layers as linear maps: their matrices by loops, their adjoints and norms, and one frequency at a time."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gaussreg_lab.layer_maps import circular_singular_values, geometry_of, layer_map
from gaussreg_lab.linear_map import matrix_of
from gaussreg_lab.spectral import operator_norm

ONE = torch.ones(1, dtype=torch.float64)
CONVOLUTIONS = [  # layer, size of its input
    (nn.Conv1d(2, 3, 3), (7,)),
    (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (9,)),
    (nn.Conv1d(2, 3, 3, padding=2, dilation=2, padding_mode="reflect"), (8,)),
    (nn.Conv1d(1, 2, 5, padding=2), (3,)),  # longer than the input
    (nn.Conv1d(1, 2, 5, padding=2, padding_mode="circular"), (3,)),  # wraps around
    (nn.Conv1d(1, 1, 1), (1,)),
    (nn.Conv2d(2, 3, 3), (6, 5)),
    (nn.Conv2d(2, 3, 3, padding=1), (5, 6)),
    (nn.Conv2d(2, 3, 3, stride=2, padding=1), (7, 6)),
    (nn.Conv2d(2, 3, 3, stride=3, padding=1), (8, 9)),
    (nn.Conv2d(2, 3, 3, stride=(3, 2), padding=(1, 2)), (9, 6)),
    (nn.Conv2d(2, 3, 2, stride=3), (8, 7)),  # passes over pixels
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (5, 4)),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (5, 4)),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate"), (5, 4)),
    (nn.Conv2d(2, 3, 3, stride=2, padding=(2, 1), padding_mode="circular"), (6, 5)),
    (nn.Conv2d(2, 3, (2, 4), stride=(1, 2), padding=(1, 2), padding_mode="replicate"), (4, 6)),
    (nn.Conv2d(2, 3, 3, padding="same"), (5, 6)),
    (nn.Conv2d(2, 3, (2, 4), padding="same"), (5, 6)),
    (nn.Conv2d(2, 3, (2, 3), padding="same", dilation=(1, 2), padding_mode="circular"), (6, 5)),
    (nn.Conv2d(2, 3, 3, padding="valid"), (5, 6)),
    (nn.Conv2d(2, 3, 3, padding=2, dilation=2), (6, 7)),
    (nn.Conv2d(4, 6, 3, padding=1, groups=2), (5, 4)),
    (nn.Conv2d(4, 4, 3, padding=1, groups=4), (5, 4)),  # depthwise
    (nn.Conv2d(3, 6, (1, 4), padding=(0, 2), groups=3), (3, 8)),
    (nn.Conv2d(3, 5, 1), (4, 3)),
    (nn.Conv2d(3, 5, 1, stride=2, padding=1), (4, 5)),
    (nn.Conv2d(1, 2, 7, padding=3), (3, 4)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(2, 1), dilation=(2, 3), groups=2), (7, 9)),
    (nn.Conv3d(2, 3, 2, padding=1), (3, 4, 3)),
    (nn.Conv3d(2, 2, (1, 3, 2), stride=(1, 2, 1), padding=(0, 1, 1), groups=2), (2, 5, 4)),
    (nn.Conv3d(1, 2, 3, padding=1, padding_mode="circular"), (3, 3, 2)),
    (nn.ConvTranspose1d(2, 3, 4, stride=3, padding=1, output_padding=2), (5,)),
    (nn.ConvTranspose1d(2, 3, 3, dilation=3, output_padding=2), (5,)),  # more than the stride
    (nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), (4, 3)),
    (nn.ConvTranspose2d(4, 6, 3, stride=(2, 3), padding=(1, 0), output_padding=(0, 2), groups=2), (3, 4)),
    (nn.ConvTranspose2d(4, 2, (2, 3), stride=2, padding=2, dilation=(3, 2), groups=2), (4, 3)),
    (nn.ConvTranspose3d(2, 2, 2, stride=2, output_padding=(1, 0, 1)), (2, 3, 2)),
]
SAME_EVEN = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
EACH = pytest.mark.parametrize(
    ("layer", "size"),
    CONVOLUTIONS,
    ids=[f"{number}-{layer}" for number, (layer, _) in enumerate(CONVOLUTIONS)],
)


@pytest.fixture(autouse=True)
def _float64_weights() -> None:
    for number, (layer, _) in enumerate(CONVOLUTIONS):
        generator = torch.Generator().manual_seed(number)
        layer.double()
        nn.init.normal_(layer.weight, generator=generator)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(layer: nn.Module, size: tuple[int, ...]) -> Tensor:
    """The layer's matrix, from what a convolution means: an entry for each place, tap and channels."""
    transposed, axes = isinstance(layer, nn.modules.conv._ConvTransposeNd), range(len(size))
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if layer.padding == "same":
        left, both = [it // 2 for it in reach], reach
    else:
        left = [0] * len(size) if layer.padding == "valid" else layer.padding
        both = [2 * it for it in left]
    if transposed:
        extra = layer.output_padding
        outputs = [(size[i] - 1) * stride[i] - both[i] + reach[i] + extra[i] + 1 for i in axes]
    else:
        outputs = [(size[i] + both[i] - reach[i] - 1) // stride[i] + 1 for i in axes]
    matrix = torch.zeros(layer.out_channels, *outputs, layer.in_channels, *size, dtype=torch.float64)
    outs, ins = layer.out_channels // layer.groups, layer.in_channels // layer.groups
    steps = size if transposed else outputs  # the side that strides
    for place, tap in itertools.product(
        itertools.product(*map(range, steps)), itertools.product(*map(range, kernel))
    ):
        other = [place[i] * stride[i] + tap[i] * dilation[i] - left[i] for i in axes]
        if transposed:
            here, there = (other if inside(other, outputs) else None), place
        else:
            here, there = place, met_pixel(other, size, layer.padding_mode)
        if here is None or there is None:
            continue
        for group in range(layer.groups):
            rows, columns = slice(group * outs, (group + 1) * outs), slice(group * ins, (group + 1) * ins)
            weight = layer.weight.detach()
            block = (
                weight[(columns, slice(None), *tap)].T if transposed else weight[(rows, slice(None), *tap)]
            )
            matrix[(rows, *here, columns, *there)] += block
    return matrix.reshape(layer.out_channels * math.prod(outputs), -1)


def inside(place: list[int], size: list[int]) -> bool:
    return all(0 <= at < n for at, n in zip(place, size, strict=True))


def met_pixel(place: list[int], size: tuple[int, ...], mode: str) -> list[int] | None:
    """Where a tap beyond the border looks; nowhere for padding by zeros."""
    if mode == "zeros":
        return place if inside(place, size) else None
    rules = {
        "circular": lambda at, n: at % n,
        "replicate": lambda at, n: min(max(at, 0), n - 1),
        "reflect": lambda at, n: n - 1 - abs(n - 1 - abs(at)),
    }
    return [rules[mode](at, n) for at, n in zip(place, size, strict=True)]


@EACH
@SAME_EVEN
def test_the_matrix_of_a_layer_is_the_one_written_by_loops(layer, size):
    got = matrix_of(layer_map(layer, size), ONE)
    torch.testing.assert_close(got, by_loops(layer, size), rtol=1e-13, atol=1e-13)


@EACH
@SAME_EVEN
def test_the_map_is_the_layer_without_its_bias(layer, size):
    x = randn(2, layer.in_channels, *size)
    bias = layer.bias.detach().reshape(-1, *[1] * len(size))
    got = layer_map(layer, size).forward(x)
    torch.testing.assert_close(got, layer(x).detach() - bias, rtol=1e-12, atol=1e-12)


@EACH
@SAME_EVEN
def test_the_adjoint_moves_to_the_other_side_of_an_inner_product(layer, size):
    linear = layer_map(layer, size)
    x = randn(3, *linear.input_shape)
    image = linear.forward(x)
    y = randn(*image.shape, seed=1)
    back = linear.adjoint(y)
    assert back.shape == x.shape
    scale = (image.norm() * y.norm()).item()
    assert abs((image * y).sum().item() - (x * back).sum().item()) < 1e-12 * scale


@EACH
@SAME_EVEN
def test_an_operator_norm_is_the_top_singular_value_of_the_matrix(layer, size):
    expected = torch.linalg.svdvals(by_loops(layer, size))[0].item()
    assert operator_norm(layer, size) == pytest.approx(expected, rel=1e-9)


def test_a_linear_layer_is_its_weight():
    layer = nn.Linear(5, 3).double()
    linear = layer_map(layer)
    torch.testing.assert_close(matrix_of(linear, ONE), layer.weight.detach(), rtol=0, atol=0)
    torch.testing.assert_close(linear.adjoint(torch.eye(3).double()), layer.weight.detach(), rtol=0, atol=0)
    assert operator_norm(layer) == pytest.approx(torch.linalg.matrix_norm(layer.weight, 2).item(), rel=1e-12)


def test_another_weight_takes_the_place_of_the_layers_own():
    layer, other = nn.Conv2d(1, 1, 3, padding=1).double(), nn.Conv2d(1, 1, 3, padding=1).double()
    got = matrix_of(layer_map(layer, (4, 4), other.weight.detach()), ONE)
    torch.testing.assert_close(got, by_loops(other, (4, 4)), rtol=1e-13, atol=1e-13)


def test_a_layer_with_a_parametrized_weight_is_the_layer_with_that_weight():
    plain = nn.Conv2d(2, 3, 3, stride=2).double()
    weighted = parametrizations.weight_norm(nn.Conv2d(2, 3, 3, stride=2).double())
    with torch.no_grad():
        plain.weight.copy_(weighted.weight)
    assert operator_norm(weighted, (5, 6)) == pytest.approx(operator_norm(plain, (5, 6)), rel=1e-12)
    assert type(geometry_of(weighted)) is nn.Conv2d


def test_a_geometry_has_no_weights():
    for layer in (nn.Linear(2, 3, bias=False), nn.Conv2d(2, 3, 3, stride=2, bias=False)):
        assert list(geometry_of(layer).state_dict()) == []
        assert repr(geometry_of(layer)) == repr(layer)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.AvgPool2d(2), nn.BatchNorm2d(3)], ids=str)
def test_layers_without_a_matrix_of_weights_are_refused_with_the_known_ones(layer):
    with pytest.raises(
        NotImplementedError, match=f"Linear, Conv1d.*ConvTranspose3d, got {type(layer).__name__}"
    ):
        layer_map(layer, (8, 8))


@pytest.mark.parametrize("size", [None, (8,), (8, 8, 8), (0, 8)])
def test_a_convolution_needs_a_size_for_each_axis(size):
    with pytest.raises(
        ValueError, match=r"input_size of 2 positive numbers.*on which the norm of a Conv2d depends"
    ):
        layer_map(nn.Conv2d(1, 1, 3), size)


def test_a_linear_layer_has_no_size():
    with pytest.raises(ValueError, match=r"input_size None for Linear, got \(8, 8\)"):
        layer_map(nn.Linear(64, 2), (8, 8))


# circular convolutions, one frequency at a time

CIRCULAR = [
    (nn.Conv1d(2, 3, 3, padding="same", padding_mode="circular"), (7,)),
    (nn.Conv1d(2, 3, 4, padding="same", padding_mode="circular"), (6,)),
    (nn.Conv1d(3, 2, 5, padding="same", padding_mode="circular"), (5,)),  # as long as the input
    (nn.Conv2d(2, 3, 3, padding="same", padding_mode="circular"), (4, 5)),
    (nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"), (3, 3)),
    (nn.Conv2d(2, 3, (2, 4), padding="same", padding_mode="circular"), (5, 4)),
    (nn.Conv2d(4, 6, 3, padding="same", groups=2, padding_mode="circular"), (4, 5)),
    (nn.Conv2d(4, 4, 3, padding="same", groups=4, padding_mode="circular"), (4, 3)),
    (nn.Conv2d(2, 3, (3, 2), padding="same", dilation=(2, 3), padding_mode="circular"), (6, 5)),
    (nn.Conv2d(4, 2, 3, padding="same", dilation=2, groups=2, padding_mode="circular"), (5, 6)),
    (nn.Conv3d(2, 2, 3, padding="same", padding_mode="circular"), (3, 4, 3)),
]


@pytest.mark.parametrize(("layer", "size"), CIRCULAR, ids=str)
@SAME_EVEN
def test_all_singular_values_of_a_circular_convolution_come_one_frequency_at_a_time(layer, size):
    layer = layer.double()
    got = circular_singular_values(layer, size).sort(descending=True).values
    expected = torch.linalg.svdvals(by_loops(layer, size))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("side", [3, 4, 8])
def test_an_enlarged_circle_bounds_a_convolution_padded_by_zeros(kernel, dilation, side):
    reach = dilation * (kernel - 1)
    for padding in (reach // 2, reach, reach + 1):
        layer = nn.Conv2d(2, 3, kernel, padding=padding, dilation=dilation).double()
        if side + 2 * padding <= reach:
            continue
        bound = circular_singular_values(layer, (side + reach, side + reach)).max().item()
        assert operator_norm(layer, (side, side)) <= bound * (1 + 1e-12)


def test_a_circle_of_the_input_alone_is_no_bound():
    """Its three frequencies miss the one that the kernel passes best."""
    layer = nn.Conv1d(1, 1, 3, padding=1).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[-1.0, 2.0, -1.0]]]))
    assert circular_singular_values(layer, (3,)).max().item() == pytest.approx(3, rel=1e-12)
    assert operator_norm(layer, (3,)) == pytest.approx(2 + math.sqrt(2), rel=1e-12)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(1, 1, 3, stride=(1, 2)), nn.ConvTranspose2d(1, 1, 3), nn.ReLU()], ids=str
)
def test_frequencies_need_a_convolution_of_stride_1(layer):
    with pytest.raises(NotImplementedError, match="convolution of stride 1, got "):
        circular_singular_values(layer, (4, 4))


def test_frequencies_need_a_size_for_each_axis():
    with pytest.raises(ValueError, match="input_size of 2 positive numbers"):
        circular_singular_values(nn.Conv2d(1, 1, 3), (4,))


# the kernel flattened to a matrix


@pytest.mark.parametrize(("side", "factor"), [(8, 2.7), (28, 2.97), (48, 2.99)])
def test_the_flattened_kernel_of_a_blur_hides_a_factor_that_grows_to_3(side, factor):
    """All nine weights alike: flattened it is a vector of length 3; a wide flat image is stretched by 9."""
    layer = nn.Conv2d(1, 1, 3, padding=1).double()
    nn.init.ones_(layer.weight)
    flattened = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
    true = operator_norm(layer, (side, side))
    assert flattened == pytest.approx(3, rel=1e-12)
    assert true == pytest.approx((1 + 2 * math.cos(math.pi / (side + 1))) ** 2, rel=1e-9)
    assert factor < true / flattened < 3


def test_a_size_that_is_one_number_is_refused():
    with pytest.raises(ValueError, match=r"input_size of 2 positive numbers, .* got 8"):
        layer_map(nn.Conv2d(1, 2, 3), 8)
