"""Kim's CNN-rand on TREC: what does a question ask for? Six classes, 5,452 training and 500 test questions.

Needs the question classification set: python -m cnn_jax.data.prepare sentences_trec

The recipe is that of ``configs/sentences_mr.py``, for ten epochs; the split is the published one.

Command:  python launch.py --config=configs/sentences_trec.py
Time:     10 minutes on 2 CPU cores (AMD EPYC) that had much other work
Expected: test accuracy 91.13 % ± 0.12 (mean ± std over 3 seeds: --config.seed=0 to 2)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant, config_module


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: a small network for a few steps."""
    recipe = config_module("sentences_mr")
    check_variant(variant, (recipe.SMOKE,))
    config = recipe.kim_config("text:data/TREC", length=40, vocabulary=9_000)
    config.epochs = 10
    config.reference.accuracy, config.reference.source = 0.912, "CNN-rand, Kim 2014"
    return recipe.smoke(config) if variant == recipe.SMOKE else config
