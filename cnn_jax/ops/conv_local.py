"""Locally connected layers: a convolution with a different kernel at every output position."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import INEXACT, AnyArray, Number, accumulator, check_array, check_precision, split_batch
from cnn_jax.ops.canonical import check_groups, windows
from cnn_jax.ops.im2col import window_rows
from cnn_jax.ops.padding import Padding, check_boundary


def conv_local(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    kernel: Shaped[AnyArray, "..."],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    boundary: str = "zero",
    boundary_value: Number = 0.0,
    rounding: str = "floor",
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "*batch_and_output features"]:
    """Computes a convolution with unshared weights: every output position has its own kernel.

    Args:
      x: ``(*batch, *space, C_in)``.
      kernel: ``(*output, *window, C_in / feature_group_count, C_out)``. Flax's ``ConvLocal`` stores the kernel as
        ``(*output, prod(window) * C_in, C_out)``, where the channels vary more slowly than the window.
      strides: This and all remaining options have the same meaning as in :func:`cnn_jax.ops.conv`.

    Returns:
      ``(*batch, *output, C_out)``.

    Raises:
      UsageError: See :func:`cnn_jax.ops.conv`; also if the kernel has another output size.

    References:
      LeCun, Generalization and network design strategies, 1989; Taigman et al., DeepFace, 2014.

    >>> conv_local(jnp.ones((8, 8, 3)), jnp.ones((6, 6, 3, 3, 3, 16))).shape
    (6, 6, 16)
    """
    op = "conv_local"
    check_boundary(op, boundary, boundary_value)
    check_precision(op, precision)
    x, kernel = (
        check_array(op, "x", x, empty=True, dtypes=INEXACT),
        check_array(op, "kernel", kernel, dtypes=INEXACT),
    )
    rank = (kernel.ndim - 2) // 2
    if rank < 1 or kernel.ndim % 2:
        raise UsageError(
            f"{op}: kernel of shape {kernel.shape} has {kernel.ndim} axes, but must be "
            f"(*output, *window, C_in / feature_group_count, C_out), so 4, 6 or 8 for 1, 2 or 3 dimensions"
        )
    groups = check_groups(op, kernel, feature_group_count)
    merged, batch = split_batch(op, x, rank, f"kernel of shape {kernel.shape}")
    *_, per_group, features = kernel.shape
    if x.shape[-1] != per_group * groups:
        raise UsageError(
            f"{op}: x of shape {x.shape} has {x.shape[-1]} channels, but kernel {kernel.shape} with "
            f"feature_group_count={groups} takes {per_group * groups}; channels come last"
        )
    geometry = windows(
        op,
        merged.shape[1:-1],
        kernel.shape[rank:-2],
        strides=strides,
        padding=padding,
        input_dilation=input_dilation,
        kernel_dilation=kernel_dilation,
        rounding=rounding,
    )
    output = geometry.sliding.output
    if kernel.shape[:rank] != output:
        raise UsageError(
            f"{op}: kernel of shape {kernel.shape} is for an output of {kernel.shape[:rank]}, but x of shape {x.shape} "
            f"gives {output}; start its shape with {output}"
        )
    dtype = jnp.result_type(x, kernel)
    wide = accumulator(dtype)
    rows = window_rows(merged.astype(wide), geometry, boundary, boundary_value)
    y = jnp.einsum(
        "n...tgc,...tcgo->n...go",
        rows.reshape(*rows.shape[:-1], groups, per_group),
        kernel.astype(wide).reshape(*output, -1, per_group, groups, features // groups),
        precision=precision,
    )
    return y.reshape(*batch, *output, features).astype(dtype)
