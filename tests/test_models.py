"""The networks: their shapes, what they are made of, and where their weights come from."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from gaussreg_lab.models import Normalize, cifar_convnet, in_eval_mode, lenet, lenet8, mlp

BUILDERS = {mlp: (1, 8, 8), lenet: (1, 28, 28), lenet8: (1, 8, 8), cifar_convnet: (3, 32, 32)}

every_model = pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
every_convnet = pytest.mark.parametrize("build", list(BUILDERS)[1:], ids=lambda build: build.__name__)


@every_model
def test_a_model_turns_images_into_ten_logits(build):
    assert build()(torch.rand(3, *BUILDERS[build])).shape == (3, 10)


@every_convnet
def test_a_convolutional_model_has_as_many_logits_as_classes(build):
    assert build(classes=4)(torch.rand(3, *BUILDERS[build])).shape == (3, 4)


@every_model
def test_logits_are_not_rectified(build):
    assert build()(torch.rand(20, *BUILDERS[build])).min() < 0


@every_model
def test_a_model_begins_with_its_own_normalization(build):
    assert isinstance(build()[0], Normalize)
    assert [type(layer) for layer in build()].count(Normalize) == 1


@every_model
def test_a_model_is_a_chain_of_layers_whose_moments_we_know(build):
    known = (Normalize, nn.Flatten, nn.Linear, nn.Conv2d, nn.ReLU, nn.AvgPool2d)
    assert all(isinstance(layer, known) for layer in build())


@every_model
def test_a_model_is_linear_before_and_after_each_relu(build):
    layers = list(build())
    for before, after in pairwise(layers):
        if isinstance(after, nn.ReLU):
            assert isinstance(before, nn.Linear | nn.Conv2d)
    assert isinstance(layers[-1], nn.Linear)


@every_model
def test_one_relu_stands_between_any_two_trained_layers(build):
    kinds = [type(layer) for layer in build() if isinstance(layer, nn.Linear | nn.Conv2d | nn.ReLU)]
    assert nn.ReLU not in kinds[::2]
    assert set(kinds[1::2]) == {nn.ReLU}


@every_model
def test_a_model_gives_the_same_in_training_and_in_evaluation(build):
    model, x = build(), torch.rand(2, *BUILDERS[build])
    assert torch.equal(model.train()(x), model.eval()(x))


@every_model
def test_models_of_one_seed_have_the_same_weights(build):
    torch.rand(7)
    first, second = build(seed=5).state_dict(), build(seed=5).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_model
def test_models_of_two_seeds_have_different_weights(build):
    for first, second in zip(build(seed=0).parameters(), build(seed=1).parameters(), strict=True):
        assert not torch.equal(first, second)


@every_model
def test_building_a_model_does_not_touch_the_global_generator(build):
    torch.rand(7)
    before = torch.get_rng_state()
    build(seed=3)
    assert torch.equal(torch.get_rng_state(), before)


@every_model
def test_every_weight_gets_a_gradient(build):
    model = build()
    model(torch.rand(8, *BUILDERS[build])).square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in model.parameters())


@every_convnet
def test_pooling_is_an_argument(build):
    kinds = [type(layer) for layer in build(pool=nn.MaxPool2d)]
    assert nn.MaxPool2d in kinds
    assert nn.AvgPool2d not in kinds
    assert build(pool=nn.MaxPool2d)(torch.rand(2, *BUILDERS[build])).shape == (2, 10)


@every_convnet
def test_every_pooling_halves_the_image(build):
    sides, x = [], torch.rand(1, *BUILDERS[build])
    for layer in build():
        if isinstance(layer, nn.AvgPool2d):
            sides.append((x.shape[-1], layer(x).shape[-1]))
        x = layer(x)
    assert sides
    assert all(before == 2 * after for before, after in sides)


def size(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_lenet_has_the_size_of_the_paper():
    assert size(lenet(channels=(32, 64), hidden=1024, pool=nn.MaxPool2d)) == 3_274_634


def test_sizes_of_an_mlp_are_pixels_widths_and_classes():
    linear = [layer for layer in mlp((64, 32, 16, 3)) if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(64, 32), (32, 16), (16, 3)]


def test_an_mlp_of_two_sizes_is_affine():
    model, (a, b) = mlp((4, 3)).double(), torch.rand(2, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(model((a + b) / 2), (model(a) + model(b)) / 2)


def test_width_is_that_of_the_first_convolutions():
    convolutions = [layer for layer in cifar_convnet(width=6) if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [6, 6, 12, 12, 24, 24]
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}


@pytest.mark.parametrize(("build", "kernel"), [(lenet, (5, 5)), (lenet8, (3, 3))])
def test_lenets_have_two_convolutions_of_their_own_kernel(build, kernel):
    convolutions = [layer for layer in build(channels=(5, 7)) if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [5, 7]
    assert {layer.kernel_size for layer in convolutions} == {kernel}


@pytest.mark.parametrize("build", [lenet, lenet8])
def test_lenets_have_one_hidden_layer_of_the_width_asked_for(build):
    linear = [layer for layer in build(hidden=9, classes=4) if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [9, 4]


@pytest.mark.parametrize("sizes", [(), (64,), (64, 0, 10), (-1, 10)])
def test_an_mlp_needs_two_positive_sizes(sizes):
    with pytest.raises(ValueError, match="Expected sizes to be two or more positive numbers, got"):
        mlp(sizes)


# normalization


def test_one_mean_and_one_std_serve_every_channel():
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(Normalize(0.4, 0.2)(x), (x - 0.4) / 0.2)


def test_each_channel_can_have_a_mean_and_a_std_of_its_own():
    x = torch.rand(2, 3, 4, 5)
    means, stds = [0.1, 0.2, 0.3], [0.5, 1.0, 2.0]
    by_hand = [(x[:, c] - means[c]) / stds[c] for c in range(3)]
    torch.testing.assert_close(Normalize(means, stds)(x), torch.stack(by_hand, dim=1))


def test_one_std_can_serve_means_of_each_channel():
    x = torch.rand(2, 2, 4, 4)
    torch.testing.assert_close(Normalize([0.1, 0.9], 0.5)(x)[:, 1], (x[:, 1] - 0.9) / 0.5)


def test_the_default_normalization_maps_pixels_to_minus_one_and_one():
    assert Normalize()(torch.tensor([[0.0, 0.5, 1.0]])).tolist() == [[-1, 0, 1]]


def test_a_normalization_is_saved_but_not_trained():
    layer = Normalize([0.1, 0.2], 0.3)
    assert not list(layer.parameters())
    assert set(layer.state_dict()) == {"mean", "std"}


def test_a_normalization_shows_its_numbers():
    assert repr(Normalize(0.5, [0.25, 0.75])) == "Normalize(mean=[0.5], std=[0.25, 0.75])"


@pytest.mark.parametrize("std", [0.0, -1.0, [0.5, 0.0], float("nan")])
def test_a_std_that_is_not_positive_is_refused(std):
    with pytest.raises(ValueError, match="Expected std > 0, got"):
        Normalize(0.5, std)


# modes


def modes(model: nn.Module) -> list[bool]:
    return [layer.training for layer in model.modules()]


def half_frozen() -> nn.Sequential:
    """In train mode, but for one layer."""
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.Dropout(), nn.Linear(3, 2))).train()
    model[1][0].eval()
    return model


def test_for_a_while_every_layer_is_in_eval_mode_and_then_in_its_own():
    model = half_frozen()
    before = modes(model)
    assert set(before) == {True, False}
    with in_eval_mode(model):
        assert not any(modes(model))
    assert modes(model) == before


def test_the_mode_comes_back_after_an_error_and_the_error_is_not_hidden():
    model = half_frozen()
    before = modes(model)
    with pytest.raises(KeyboardInterrupt), in_eval_mode(model):
        raise KeyboardInterrupt
    assert modes(model) == before


def test_eval_mode_can_be_nested_and_a_model_in_it_stays_so():
    model = half_frozen()
    before = modes(model)
    with in_eval_mode(model):
        with in_eval_mode(model):
            pass
        assert not any(modes(model))
    assert modes(model) == before
    model.eval()
    with in_eval_mode(model):
        pass
    assert not any(modes(model))


def test_in_eval_mode_batch_norm_learns_nothing_and_dropout_drops_nothing():
    model, x = half_frozen(), torch.rand(5, 3)
    model[1][0].train()
    with in_eval_mode(model):
        first, second = model(x), model(x)
    assert torch.equal(first, second)
    assert model[0].num_batches_tracked == 0
    assert not torch.equal(model(x), model(x))
    assert model[0].num_batches_tracked == 2
