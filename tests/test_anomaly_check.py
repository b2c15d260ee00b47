"""A training whose settings make no anomaly is noticed; one whose anomalies are rare or faint is left alone."""

import numpy as np
import pytest

from configs import default
from data.anomaly_check import ATTEMPTS, check_anomalies
from data.banks import COLOUR, SELF
from draem_jax.errors import UserError

# Dark parts on black: nowhere more than 40 levels from the background.
IMAGES = np.random.default_rng(0).integers(0, 40, (6, 32, 32, 3), np.uint8)
TEXTURES = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), np.uint8)


def check(textures=TEXTURES, images=IMAGES, **changes):
    check_anomalies(images, textures, seed=0, **{**default.get_config().synthesis, **changes})


@pytest.mark.parametrize('textures', [TEXTURES, COLOUR, SELF], ids=['textures', 'colour', 'self'])
def test_usual_settings_make_anomalies(textures):
    check(textures)


@pytest.mark.parametrize('changes', [{'foreground_threshold': 200}, {'mask_threshold': (0.999, 0.999)}])
def test_settings_that_make_none_are_named_with_the_tool_that_shows_it(changes):
    with pytest.raises(UserError, match=f'None of {ATTEMPTS} training examples') as caught:
        check(**changes)
    ((field, value),) = changes.items()
    for part in (f'--config.synthesis.{field}={value}', 'tools/preview.py'):
        assert part in str(caught.value)


def test_anomalies_may_be_rare_but_not_absent():
    check(anomaly_probability=1e-6)
    with pytest.raises(UserError, match=r'anomaly_probability=0\.0'):
        check(anomaly_probability=0.0)


def test_the_error_of_a_file_is_the_banks_own():
    class Broken:
        shape, dtype, failure = IMAGES.shape, IMAGES.dtype, UserError("Cannot read image 'a.png'.")

        def __len__(self):
            return len(IMAGES)

        def __getitem__(self, index):
            raise self.failure

    with pytest.raises(UserError, match=r"^Cannot read image 'a\.png'\.$"):
        check(images=Broken())
