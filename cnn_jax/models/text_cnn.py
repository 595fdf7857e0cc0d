"""Kim's network for sentences: windows of words, each with its maximum over time.

Kim, "Convolutional neural networks for sentence classification", EMNLP 2014: the variant CNN-rand, whose word vectors
are trained from random values.
"""

from collections.abc import Sequence
from functools import partial

from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import DTypeLike

from cnn_jax import nn
from cnn_jax.errors import UsageError
from cnn_jax.models.initializers import uniform
from cnn_jax.models.variant import Variant, scaled
from cnn_jax.ops.arguments import Number

_KIM = uniform(0.01)  # as in the author's code


def text_cnn(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    vocabulary_size: int = 20_000,
    features: int = 300,
    windows: Sequence[int] = (3, 4, 5),
    filters: int = 100,
    dropout_rate: Number = 0.5,
    kernel_init: Initializer = _KIM,
) -> nn.Sequence:
    """Word vectors, 100 filters of each window, their maxima over time, dropout, and one linear layer.

    With 20,000 words it has 6,360,902 parameters for two classes, of which 6,000,000 are word vectors.

    Args:
      num_classes: The number of outputs.
      input_shape: The shape of one input, (number of words,).
      width: Multiplies the number of filters.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      vocabulary_size: The number of word vectors, at least that of the words of the training set.
      features: The length of the word vectors.
      windows: The numbers of words in the windows.
      filters: The number of filters of each window, before scaling.
      dropout_rate: The probability of dropping a maximum.
      kernel_init: The initialiser of the kernels; by default Kim's, uniform between -0.01 and 0.01.

    Raises:
      UsageError: There are no windows, or one is given twice.
    """
    if not windows or len(set(windows)) < len(windows):
        raise UsageError(f"windows={tuple(windows)} must be different numbers of words, such as (3, 4, 5)")
    found = scaled(filters, width)
    conv = partial(nn.ConvMaxOverTime, features, found, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
    return nn.Sequence(
        {
            "words": nn.Embed(vocabulary_size, features, dtype=dtype, rngs=rngs),
            "maxima": nn.Parallel({f"window{window}": conv(window) for window in windows}),
            "dropout": nn.Dropout(dropout_rate),
            "output": nn.Linear(found * len(windows), num_classes, kernel_init=kernel_init, dtype=dtype, rngs=rngs),
        }
    )


VARIANTS = {"text_cnn": Variant(text_cnn, (60,), 2)}
