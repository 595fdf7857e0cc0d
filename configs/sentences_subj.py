"""Kim's CNN-rand on Subj: is a sentence about a film subjective or objective?

Needs the subjectivity set: python -m cnn_jax.data.prepare sentences_subj

The recipe and the ten folds, as variants ``fold0`` to ``fold9``, are those of ``configs/sentences_mr.py``.

Command:  python launch.py --config=configs/sentences_subj.py
Time:     7 minutes on 2 CPU cores (AMD EPYC) that had much other work
Expected: test accuracy of the first two folds 91.50 % and 90.90 % (1 seed)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant, config_module


def get_config(variant: str = "") -> ConfigDict:
    """The experiment on one fold, or its ``smoke`` variant: a small network for a few steps."""
    recipe = config_module("sentences_mr")
    check_variant(variant, (recipe.SMOKE, *(f"fold{fold}" for fold in range(recipe.FOLDS))))
    config = recipe.kim_config("text:data/sent-conv-torch/data/raw/subj.{label}", length=60, vocabulary=24_000)
    recipe.use_fold(config, int(variant.removeprefix("fold")) if variant.startswith("fold") else 0)
    config.reference.accuracy, config.reference.source = 0.896, "CNN-rand, Kim 2014, ten-fold"
    return recipe.smoke(config) if variant == recipe.SMOKE else config
