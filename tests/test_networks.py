"""Sizes, shapes and initial values of the networks against the published ones."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from draem_jax import devices
from draem_jax.errors import UserError
from draem_jax.model import layers, networks


def count_with_biases(subnetwork, channels):
    """Parameters, counted with the biases that normalised convolutions have in the authors' code, not in ours."""
    image = jax.ShapeDtypeStruct((1, 256, 256, channels), jnp.float32)
    shapes = jax.eval_shape(lambda x: subnetwork.init(jax.random.key(0), x, train=False), image)
    running_means = [leaf for path, leaf in jax.tree.leaves_with_path(shapes['batch_stats']) if path[-1].key == 'mean']
    return sum(leaf.size for leaf in [*jax.tree.leaves(shapes['params']), *running_means])


def test_reconstructive_network_has_the_published_parameter_count():
    assert count_with_biases(networks.ReconstructiveSubnetwork(), channels=3) == 69_048_579


def test_discriminative_network_has_the_published_parameter_count():
    assert count_with_biases(networks.DiscriminativeSubnetwork(), channels=6) == 28_374_146


def test_operations_are_those_that_the_layer_widths_give():
    # 159.9 and 38.1 billion multiplications and additions at the paper's size, counted by hand from the widths.
    assert networks.forward_flops(networks.Draem(), (256, 256)) == pytest.approx(2 * 198.0e9, rel=5e-4)


@pytest.mark.parametrize('size', [(32, 32), (64, 96), (224, 160)])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_outputs_have_the_input_size_and_float32(size, dtype):
    model = networks.Draem(4, 3, dtype=dtype)
    variables = networks.init_variables(model, size, seed=0)
    image = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    reconstruction, logits = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, image)
    assert reconstruction.shape == (2, *size, 3)
    assert logits.shape == (2, *size, 2)
    assert reconstruction.dtype == logits.dtype == jnp.float32


def test_parameters_and_statistics_stay_float32_when_activations_do_not():
    variables = networks.init_variables(networks.Draem(4, 3, dtype=jnp.bfloat16), (32, 32), seed=0)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype('float32')}


@pytest.mark.parametrize('size', [(250, 256), (256, 16), (0, 32)])
def test_a_size_that_is_no_multiple_of_32_is_refused(size):
    with pytest.raises(UserError, match='multiples of 32'):
        networks.init_variables(networks.Draem(4, 3), size, seed=0)


def test_initial_values_follow_the_authors_distributions():
    variables = networks.init_variables(networks.Draem(32, 16), (32, 32), seed=0)
    values = {}
    for path, leaf in jax.tree.leaves_with_path(variables):
        values.setdefault(path[-1].key, []).append(leaf.ravel())
    values = {name: np.concatenate(parts) for name, parts in values.items()}
    assert abs(values['kernel'].mean()) < 1e-4
    assert abs(values['kernel'].std() - 0.02) < 1e-4
    assert abs(values['scale'].mean() - 1) < 2e-3
    assert abs(values['scale'].std() - 0.02) < 2e-3
    assert not values['bias'].any()
    assert not values['mean'].any()
    assert (values['var'] == 1).all()


def test_initial_values_have_the_structure_that_flax_would_make():
    model = networks.Draem(2, 2)
    theirs = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    ours = networks.init_variables(model, (32, 32), seed=0)
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(lambda leaf: leaf.shape, theirs)


def test_another_seed_gives_other_weights_and_the_same_seed_the_same():
    kernels = [
        networks.init_variables(networks.Draem(2, 2), (32, 32), seed)['params']['reconstructive']['output']['kernel']
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[0] != kernels[2]).all()


@pytest.mark.parametrize('train', [True, False])
def test_batch_normalisation_equals_flax(train):
    image = np.random.default_rng(0).normal(3, 2, (2, 4, 6, 5)).astype(np.float32)
    ours, theirs = networks.BatchNorm(), nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
    variables = ours.init(jax.random.key(0), image, train=False)
    out, changes = ours.apply(variables, image, train=train, mutable=['batch_stats'])
    expected, expected_changes = theirs.apply(variables, image, mutable=['batch_stats'])
    np.testing.assert_allclose(out, expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), changes, expected_changes)


def test_batch_normalisation_rounds_bfloat16_once():
    image = np.random.default_rng(0).normal(3, 2, (2, 4, 6, 5)).astype(jnp.bfloat16)
    layer = networks.BatchNorm()
    variables = layer.init(jax.random.key(0), image, train=False)
    out, _ = layer.apply(variables, image, train=True, mutable=['batch_stats'])
    exact, _ = layer.apply(variables, image.astype(np.float32), train=True, mutable=['batch_stats'])
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, exact.astype(jnp.bfloat16))


@pytest.fixture(params=['as JAX derives it', 'lean'])
def gradient_of_normalisation(request, monkeypatch):
    """Uses the gradient of a CPU, or that of accelerators."""
    if request.param == 'lean':
        monkeypatch.setattr(layers, '_normalise', layers._lean_normalise)


@pytest.mark.parametrize('rectify', [False, True])
def test_lean_gradient_of_batch_normalisation_is_that_of_flax_and_relu(rectify):
    random = np.random.default_rng(0)
    image, weight = (random.normal(3, 2, (2, 4, 6, 5)).astype(np.float32) for _ in range(2))
    scale, bias = (random.normal(1, 1, 5).astype(np.float32) for _ in range(2))

    def ours(image, scale, bias):
        return (jnp.sin(layers._lean_normalise(image, scale, bias, 1e-5, rectify, None)[0]) * weight).sum()

    def theirs(image, scale, bias):
        layer = nn.BatchNorm(use_running_average=False, epsilon=1e-5, use_fast_variance=False)
        variables = layer.init(jax.random.key(0), image) | {'params': {'scale': scale, 'bias': bias}}
        out, _ = layer.apply(variables, image, mutable=['batch_stats'])
        return (jnp.sin(nn.relu(out) if rectify else out) * weight).sum()

    gradients = (jax.grad(function, argnums=(0, 1, 2))(image, scale, bias) for function in (ours, theirs))
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_lean_gradient_of_batch_normalisation_keeps_only_bfloat16():
    image, channel = jnp.ones((2, 4, 6, 5), jnp.bfloat16), jnp.ones(5)
    _, pull = jax.vjp(lambda x, s, b: layers._lean_normalise(x, s, b, 1e-5, True, None)[0], image, channel, channel)
    kept = [leaf for leaf in jax.tree.leaves(pull) if hasattr(leaf, 'shape') and leaf.ndim == 4]
    assert [leaf.dtype for leaf in kept] == [jnp.bfloat16]


@pytest.mark.usefixtures('gradient_of_normalisation')
def test_batch_normalisation_over_four_devices_has_the_gradients_of_one():
    random = np.random.default_rng(0)
    image = random.normal(3, 2, (8, 4, 6, 5)).astype(np.float32)
    weight = random.normal(size=image.shape).astype(np.float32)
    variables = networks.BatchNorm().init(jax.random.key(0), image, train=False)

    def loss(layer, params, image, weight):
        stats = variables['batch_stats']
        out, _ = layer.apply({'params': params, 'batch_stats': stats}, image, train=True, mutable=['batch_stats'])
        return (jnp.sin(out) * weight).mean()

    one = jax.grad(functools.partial(loss, networks.BatchNorm()), argnums=(0, 1))(variables['params'], image, weight)

    def on_devices(params, image, weight):
        shared = functools.partial(loss, networks.BatchNorm(axis_name=devices.AXIS))
        params_gradient, image_gradient = jax.grad(shared, argnums=(0, 1))(params, image, weight)
        return devices.average(params_gradient), image_gradient / devices.count()  # The loss is the mean over devices.

    four = jax.pmap(on_devices, axis_name=devices.AXIS, in_axes=(None, 0, 0), out_axes=(None, 0))(
        variables['params'], devices.split(image), devices.split(weight)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), four[0], one[0])
    np.testing.assert_allclose(devices.join(four[1]), one[1], rtol=1e-4, atol=1e-8)


def test_rematerialisation_changes_neither_values_nor_gradients():
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    results = []
    for remat in (False, True):
        block = networks.ConvBlock((4, 4), remat=remat)
        variables = networks.init_variables(block, (32, 32), seed=0)

        def loss(params, block=block, stats=variables['batch_stats']):
            out, changes = block.apply(
                {'params': params, 'batch_stats': stats}, image, train=True, mutable=['batch_stats']
            )
            return jnp.square(out).mean(), changes

        results.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(variables['params']))
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_rematerialisation_keeps_less_than_half_for_the_way_back():
    image = np.zeros((2, 32, 32, 3), np.float32)
    sizes = []
    for remat in (False, True):
        model = networks.make_model(reconstructive_width=4, discriminative_width=2, dtype='float32', remat=remat)
        variables = networks.variable_shapes(model, (32, 32))

        def way_back(variables, model=model):
            def loss(params):
                outputs, _ = model.apply({**variables, 'params': params}, image, train=True, mutable=['batch_stats'])
                return sum(output.mean() for output in outputs)

            return jax.vjp(loss, variables['params'])[1]

        sizes.append(sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(way_back, variables))))
    assert sizes[1] < sizes[0] / 2


def apply(model, images, size=(64, 64)):
    variables = networks.init_variables(model, size, seed=0)
    # As drawn for training, the kernels leave next to nothing of an image after so many layers.
    variables = jax.tree.map(lambda leaf: leaf * (12 if leaf.ndim == 4 else 1), variables)
    return jax.jit(lambda variables, images: model.apply(variables, images, train=False))(variables, images)


def test_a_network_alone_gives_its_own_output_alone():
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    for chosen, other, channels in (('discriminative', 0, 3), ('reconstructive', 1, None)):
        model = networks.Draem(2, 2, networks=chosen)
        variables = networks.variable_shapes(model, (64, 64))
        assert list(variables['params']) == [chosen]
        outputs = jax.eval_shape(lambda v, x, model=model: model.apply(v, x, train=False), variables, image)
        assert outputs[other] is None
        assert outputs[1 - other].shape[:3] == (1, 64, 64)
        if channels:
            assert variables['params'][chosen]['ConvBlock_0']['Conv_0']['kernel'].shape[2] == channels


def test_the_difference_adds_three_channels_to_what_is_segmented():
    for sees_difference, channels in ((False, 6), (True, 9)):
        shapes = networks.variable_shapes(networks.Draem(2, 2, sees_difference=sees_difference), (64, 64))
        kernel = shapes['params']['discriminative']['ConvBlock_0']['Conv_0']['kernel']
        assert kernel.shape == (3, 3, channels, 2)


@pytest.mark.parametrize('prior', [0.5, 0.01])
def test_a_network_whose_features_are_silent_says_the_prior(prior):
    model = networks.Draem(2, 2, networks='discriminative', anomaly_prior=prior)
    variables = networks.init_variables(model, (32, 32), seed=0)
    bias = variables['params']['discriminative']['output']['bias'].astype(np.float64)
    assert bias.sum() == 0
    np.testing.assert_allclose(np.exp(bias[1]) / np.exp(bias).sum(), prior, rtol=1e-6)


def test_a_plain_image_shows_no_border_where_borders_are_mirrored():
    plain = np.full((1, 64, 64, 3), 0.4, np.float32)
    for padding, shows in (('zeros', True), ('reflect', False)):
        for output in apply(networks.Draem(2, 2, padding=padding), plain):
            spread = float(np.ptp(output, axis=(1, 2)).max())
            assert (spread > 1e-4 * float(np.abs(output).max())) == shows


def test_mirrored_borders_take_images_of_64_pixels():
    with pytest.raises(UserError, match='at least 64 x 64'):
        networks.variable_shapes(networks.Draem(2, 2, padding='reflect'), (32, 64))


def test_a_high_pass_hides_a_change_of_brightness_from_the_reconstruction():
    images = np.random.default_rng(0).uniform(0, 0.5, (1, 64, 64, 3)).astype(np.float32)
    for sigma, hides in ((0.0, False), (2.0, True)):
        model = networks.Draem(2, 2, networks='reconstructive', high_pass_sigma=sigma)
        (dark, _), (bright, _) = apply(model, images), apply(model, images + np.float32(0.3))
        assert np.allclose(dark, bright, atol=1e-4 * np.abs(dark).max()) == hides
