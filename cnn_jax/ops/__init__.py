"""Pure functions of arrays: convolutions, pools, activations, norms, losses, metrics.

They have no parameters, no state and no config. Every op takes arrays with any number of leading batch axes and with
channels last. Options are keyword-only and named as in Flax and ``jax.lax``. Arguments that do not fit raise a one-line
``cnn_jax.errors.UsageError``.
"""

from cnn_jax.ops.activations import relu, scaled_tanh
from cnn_jax.ops.adaptive_pool import adaptive_avg_pool, adaptive_max_pool, global_avg_pool, global_max_pool
from cnn_jax.ops.boxes import box_area, box_iou, generalized_box_iou, non_maximum_suppression
from cnn_jax.ops.color import lab_to_rgb, rgb_to_lab
from cnn_jax.ops.conv import conv
from cnn_jax.ops.conv_local import conv_local
from cnn_jax.ops.conv_transpose import conv_transpose
from cnn_jax.ops.depthwise import depthwise_conv, separable_conv
from cnn_jax.ops.dropout import dropout, spatial_dropout
from cnn_jax.ops.im2col import col2im, im2col
from cnn_jax.ops.image_quality import psnr, ssim
from cnn_jax.ops.labels import IGNORED
from cnn_jax.ops.losses import (
    balanced_class_weights,
    sigmoid_cross_entropy,
    sigmoid_focal_loss,
    softmax_cross_entropy,
    softmax_focal_loss,
    squared_error,
)
from cnn_jax.ops.methods import METHODS
from cnn_jax.ops.metrics import (
    ClassCounts,
    calibration_bins,
    confusion_matrix,
    expected_calibration_error,
    in_top_k,
    macro_average,
    precision_recall_f1,
)
from cnn_jax.ops.normalization import batch_norm, batch_statistics, local_response_norm, normalize_by_batch
from cnn_jax.ops.padding import pad
from cnn_jax.ops.pool import avg_pool, lp_pool, max_pool
from cnn_jax.ops.rbf import rbf_output
from cnn_jax.ops.regression import huber_loss, mean_absolute_error, mean_squared_error
from cnn_jax.ops.segmentation import Overlaps, class_counts, overlaps, soft_dice_loss
from cnn_jax.ops.sound import mel_filters, spectrogram, stft
from cnn_jax.ops.toeplitz import toeplitz_matrix
from cnn_jax.ops.tune import Timing, tune
from cnn_jax.ops.unpool import max_unpool, upsample

__all__ = [
    "IGNORED",
    "METHODS",
    "ClassCounts",
    "Overlaps",
    "Timing",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "balanced_class_weights",
    "batch_norm",
    "batch_statistics",
    "box_area",
    "box_iou",
    "calibration_bins",
    "class_counts",
    "col2im",
    "confusion_matrix",
    "conv",
    "conv_local",
    "conv_transpose",
    "depthwise_conv",
    "dropout",
    "expected_calibration_error",
    "generalized_box_iou",
    "global_avg_pool",
    "global_max_pool",
    "huber_loss",
    "im2col",
    "in_top_k",
    "lab_to_rgb",
    "local_response_norm",
    "lp_pool",
    "macro_average",
    "max_pool",
    "max_unpool",
    "mean_absolute_error",
    "mean_squared_error",
    "mel_filters",
    "non_maximum_suppression",
    "normalize_by_batch",
    "overlaps",
    "pad",
    "precision_recall_f1",
    "psnr",
    "rbf_output",
    "relu",
    "rgb_to_lab",
    "scaled_tanh",
    "separable_conv",
    "sigmoid_cross_entropy",
    "sigmoid_focal_loss",
    "soft_dice_loss",
    "softmax_cross_entropy",
    "softmax_focal_loss",
    "spatial_dropout",
    "spectrogram",
    "squared_error",
    "ssim",
    "stft",
    "toeplitz_matrix",
    "tune",
    "upsample",
]
