"""U-Net on membranes of neurons in electron micrographs (ISBI 2012, Drosophila larva), in tiles of whole slices.

The 30 labelled slices of the challenge, 512x512: slices 0 to 23 are trained on and 24 to 29 are the test set, because
the labels of the challenge's own test stack were never published. The paper's scores are therefore not comparable:
warping error 0.000353, Rand error 0.0382, pixel error 0.0611. Lay the challenge's training volume out as
``membranes/images/0.png`` to ``29.png`` and ``membranes/masks/0.png`` to ``29.png``, 255 inside of cells and 0 on
membranes; ``python -m cnn_jax.data.prepare membranes`` says where it is. For a folder elsewhere add
``--config.data.name=masks:path/to/membranes``.

Slices are only mirrored. Turned and deformed ones, as in the paper, are blurred by interpolation: with so few steps
they lower the IoU, from 75.56 % to 71.25 % with the first seed.

Cardona et al., "An integrated micro- and macroarchitectural analysis of the Drosophila brain by computer-assisted
serial section electron microscopy", PLoS Biology 2010; Arganda-Carreras et al., "Crowdsourcing the creation of image
segmentation algorithms for connectomics", Frontiers in Neuroanatomy 2015.

Command:  python launch.py --config=configs/u_net_membranes.py
Time:     80 to 130 s of CPU time on one core (AMD EPYC), compiling and report included
Expected: test IoU 76.50 % ± 0.83 (mean ± std over 3 seeds: --config.seed=0 to 2), pixel accuracy 91.22 % ± 0.29, Rand
          error 0.505 ± 0.093
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: a few steps of a smaller network."""
    check_variant(variant, ("smoke",))
    config = default_config("segmentation")
    config.data.name = "masks:membranes"
    config.data.train, config.data.validation, config.data.test = "sorted[:24]", "", "sorted[24:]"
    config.data.size = (512, 512)  # of a slice; the network learns parts of it
    config.input_shape = (508, 508, 1)  # one large tile for each step, as in the paper; its output has 420x420
    config.data.augment = ("flip", "random_crop(size=(508, 508))")
    config.model.name, config.model.width = "u_net", 0.125
    config.model.options = {"depth": 3, "batch_norm": True}
    config.balanced, config.objects = True, True
    config.batch_size, config.duration, config.evaluate_every = 1, "240 steps", "120 steps"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.004
    if variant == "smoke":
        config.duration, config.evaluate_every, config.model.width = "2 steps", "2 steps", 0.0625
    return config
