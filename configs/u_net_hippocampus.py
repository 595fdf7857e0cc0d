"""A 3-D U-Net on the hippocampus in magnetic resonance images (Medical Segmentation Decathlon, task 4).

260 volumes of about 36x50x35 voxels of 1 mm; classes: background, anterior, posterior. Intensities have no common
scale, so each volume is normalised by itself. 80 % of the volumes are trained on, 10 % are for validation and 10 % the
test set, by a hash of the file's name. Dice of a test volume is the mean of the two parts, without the background.
Published: an nnU-Net has a Dice of about 90 % for the anterior and 89 % for the posterior part in five-fold
cross-validation, with other splits (Isensee et al. 2021). Get Task04_Hippocampus of the Decathlon (CC BY-SA 4.0) and
keep its folders ``imagesTr`` and ``labelsTr``; ``python -m cnn_jax.data.prepare hippocampus`` says more. For a folder
elsewhere add ``--config.data.name=masks:path/to/Task04_Hippocampus``. It needs ``pip install nibabel``.

Training parts of the volumes costs a third of whole ones; the network is scored on whole volumes.

Command:  python launch.py --config=configs/u_net_hippocampus.py
Time:     130 to 170 s of CPU time on one core (AMD EPYC), compiling and report included
Expected: test Dice 84.88 % ± 0.34 (mean ± std over 2 seeds: --config.seed=0 and 1), of the anterior part 85.11 %
          ± 0.29, of the posterior part 84.65 % ± 0.38
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: two steps of a smaller network."""
    check_variant(variant, ("smoke",))
    config = default_config("segmentation")
    config.data.name, config.data.normalize = "masks:Task04_Hippocampus", "each"
    config.data.loading = "memory"
    config.data.size = (48, 64, 48)  # of a volume; the network learns parts of it
    config.input_shape = (32, 48, 32, 1)
    config.data.augment = ("random_crop(size=(32, 48, 32))",)
    config.model.name, config.model.width = "u_net_padded", 0.125
    config.model.options = {"depth": 3, "batch_norm": True}
    config.loss = "cross_entropy_dice"
    config.score_over, config.scored_classes = "image", (1, 2)
    config.batch_size, config.epochs = 4, 6
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.002
    if variant == "smoke":
        config.duration, config.evaluate_every, config.model.width = "2 steps", "2 steps", 0.0625
    return config
