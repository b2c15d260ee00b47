"""Every config can be trained and evaluated: its program is traced, and the main ones take two steps at a tiny size."""

import jax
import numpy as np
import pytest
from experiments import EXPERIMENTS, load

import train
from draem_jax import devices
from draem_jax.model import networks, scoring
from draem_jax.training.state import init_state
from draem_jax.training.update import make_update

SIZE, BATCH = (64, 64), 2


def shrink(config):
    """The config with everything small that makes no other program, only a larger one."""
    config.dataset.image_size = SIZE
    config.model.reconstructive_width = config.model.discriminative_width = 2
    config.model.anomaly_prior = 0.5  # an initial value alone
    config.optimizer.decay_at = ()
    config.training.batch_size = BATCH
    config.evaluation.score_window = min(3, config.evaluation.score_window)
    return config


def program(config):
    """What decides about the program of a training and its evaluation, to tell apart those that differ."""
    # The learning rate is left out, because tests/test_training.py holds its ways.
    chosen = [config.model, config.loss, config.training.ema_decay > 0, config.training.accumulation_slices]
    return str([*chosen, config.evaluation.score_top])


PROGRAMS = {}  # {program: the first experiment that has it}
for experiment in EXPERIMENTS:
    PROGRAMS.setdefault(program(shrink(load(*experiment))), experiment)
del PROGRAMS[program(shrink(load('default')))]  # tests/test_end_to_end.py trains and evaluates that one.
# The switches of configs/plus.py one by one are traced only; all together they take steps.
TRAINED = [each for each in PROGRAMS.values() if each[0] != 'plus' or len(each) == 1 or each[1].count('+') > 2]
TRACED = [each for each in PROGRAMS.values() if each not in TRAINED]


def build(config):
    """(update, predict, state, batch) of a config, on one device."""
    model, optimizer, _ = train.build(config, total_steps=2)
    options = config.training
    update = jax.pmap(
        make_update(model, optimizer, slices=options.accumulation_slices, ema_decay=options.ema_decay, **config.loss),
        axis_name=devices.AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=jax.devices()[:1],
    )
    score = {'score_window': config.evaluation.score_window, 'score_top': config.evaluation.score_top}
    variables = networks.init_variables(model, SIZE, seed=0)
    state = init_state(variables, optimizer, keeps_averages=options.ema_decay > 0)
    random = np.random.default_rng(0)
    batch = {
        'image': random.integers(0, 256, (1, BATCH, *SIZE, 3), np.uint8),
        'augmented': random.integers(0, 256, (1, BATCH, *SIZE, 3), np.uint8),
        'mask': random.integers(0, 2, (1, BATCH, *SIZE, 1), np.uint8),
    }
    predict = jax.jit(scoring.make_predict(networks.make_model(**config.model), **score))
    return update, predict, state, batch


@pytest.mark.parametrize('experiment', TRAINED, ids=':'.join)
def test_a_config_takes_two_steps_and_is_evaluated(experiment):
    config = shrink(load(*experiment))
    config.training.steps = 2
    update, predict, state, batch = build(config)
    before = jax.tree.leaves(state.variables)
    for _ in range(2):
        state, metrics = update(state, batch)
        assert all(np.isfinite(value) for value in metrics.values())
    assert int(state.step) == 2
    assert any(
        (np.asarray(new) != old).any() for new, old in zip(jax.tree.leaves(state.variables), before, strict=True)
    )
    outputs = predict(state.variables, batch['augmented'][0])
    assert outputs['map'].shape == (BATCH, *SIZE)
    assert outputs['reconstruction'].shape == (BATCH, *SIZE, 3)
    for name in ('map', 'score'):
        assert np.isfinite(outputs[name]).all()
        assert 0 <= outputs[name].min() <= outputs[name].max() <= 1


@pytest.mark.parametrize('experiment', TRACED, ids=':'.join)
def test_a_switch_alone_is_traced(experiment):
    update, predict, state, batch = build(shrink(load(*experiment)))
    (after, metrics) = jax.eval_shape(update, state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert {'loss', 'gradient_norm'} < metrics.keys()
    outputs = jax.eval_shape(predict, state.variables, batch['augmented'][0])
    assert outputs['score'].shape == (BATCH,)
