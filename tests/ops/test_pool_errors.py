"""Invalid calls of pools, activations, norms and losses: messages of one line with argument, values and fix."""

import re

import jax
import jax.numpy as jnp
import pytest

from cnn_jax import ops
from cnn_jax.errors import UsageError

X = jnp.ones((2, 6, 6, 3))
KEY = jax.random.key(0)
INDICES = jnp.zeros((2, 3, 3, 3), jnp.int32)
POOLED = jnp.ones((2, 3, 3, 3))

CASES = {
    "window for no spatial axis": (
        lambda: ops.max_pool(X[0, 0], 2),
        "max_pool: window=2 applies to every spatial axis of (N, *space, C), .* "
        "shape (6, 3) has 2 axes; write window=(2,)",
    ),
    "window empty": (lambda: ops.avg_pool(X, ()), "avg_pool: window=() must have one int per spatial axis"),
    "window below 1": (lambda: ops.max_pool(X, (0, 2)), "max_pool: window=(0, 2) must be at least 1"),
    "window not whole": (lambda: ops.max_pool(X, (True, 2)), "max_pool: window must consist of Python ints"),
    "window too large": (lambda: ops.max_pool(X, (7, 7)), "max_pool: window 7x7 does not fit input 6x6 .*pad by"),
    "dilated too large": (
        lambda: ops.max_pool(X, (3, 3), dilation=3),
        "window 3x3 (dilated 7x7) does not fit input 6x6",
    ),
    "more axes than x": (
        lambda: ops.avg_pool(X[0, 0, 0], (2,)),
        "avg_pool: x of shape (3,) has 1 axes, .*needs at least 2",
    ),
    "integers": (lambda: ops.max_pool(X.astype(int), (2, 2)), "max_pool: x has dtype int32, .*x.astype('float32')"),
    "empty": (lambda: ops.avg_pool(X[:, :0], (2, 2)), "avg_pool: x of shape (2, 0, 6, 3) is empty: axis 1 has size 0"),
    "empty space of a global pool": (lambda: ops.global_max_pool(X[:, :, :0]), "global_max_pool: x of shape .*axis 2"),
    "nothing to pad": (lambda: ops.pad(X[:, :0], [1, 1]), "pad: x of shape (2, 0, 6, 3) is empty: axis 1"),
    "no classes": (
        lambda: ops.softmax_cross_entropy(jnp.ones((8, 0)), jnp.ones(8, int)),
        "softmax_cross_entropy: logits of shape (8, 0) is empty: axis 1",
    ),
    "no channels to normalise": (lambda: ops.local_response_norm(X[..., :0]), "local_response_norm: x of .* axis 3"),
    "stride 0": (lambda: ops.max_pool(X, (2, 2), strides=0), "max_pool: strides=0 must be at least 1"),
    "too many strides": (lambda: ops.lp_pool(X, (2, 2), strides=(1, 1, 1)), "strides=(1, 1, 1) has 3 entries for 2"),
    "dilation 0": (lambda: ops.max_pool(X, (2, 2), dilation=(1, 0)), "max_pool: dilation=(1, 0) must be at least 1"),
    "padding name": (lambda: ops.max_pool(X, (2, 2), padding="SAM"), "unknown padding='SAM'; did you mean 'SAME'"),
    "padding that crops all": (
        lambda: ops.max_pool(X, (2, 2), padding=-3),
        "crops all of spatial axis 0, which has size 6",
    ),
    "padding alone": (
        lambda: ops.max_pool(X, (2, 2), padding=2),
        "window 0 of spatial axis 0 (size 6) contains only pad",
    ),
    "padding alone, not counted": (
        lambda: ops.avg_pool(X, (2, 2), padding=2, count_include_pad=False),
        "avg_pool: window 0 of spatial axis 0 (size 6) contains only padding; padding=2 must be less than window 2",
    ),
    "rounding name": (
        lambda: ops.max_pool(X, (2, 2), rounding="ceiling"),
        "unknown rounding='ceiling'; did you mean 'ceil'",
    ),
    "strict with a rest": (
        lambda: ops.max_pool(X, (3, 3), strides=2, rounding="strict"),
        "stride 2 does not divide (6 - 3)",
    ),
    "ties name": (lambda: ops.max_pool(X, (2, 2), ties="last"), "max_pool: unknown ties='last'; .*'first'"),
    "derivatives name": (
        lambda: ops.avg_pool(X, (2, 2), derivatives="jaxx"),
        "unknown derivatives='jaxx'; did you mean",
    ),
    "p below 1": (lambda: ops.lp_pool(X, (2, 2), p=0.5), "lp_pool: p=0.5 must be a finite number, at least 1"),
    "p infinite": (lambda: ops.lp_pool(X, (2, 2), p=float("inf")), "lp_pool: p=inf must be .*max_pool"),
    "output size 0": (
        lambda: ops.adaptive_avg_pool(X, (0, 2)),
        "adaptive_avg_pool: output_size=(0, 2) must be at least 1",
    ),
    "output size an int": (lambda: ops.adaptive_max_pool(X[0, 0], 3), "output_size=3 applies to every spatial axis of"),
    "scale an int": (lambda: ops.upsample(X[0, 0], 2), "upsample: scale=2 applies to every spatial axis of"),
    "unpooled to an int": (
        lambda: ops.max_unpool(X[0, 0], INDICES[0, 0], 6),
        "output_shape=6 applies to every spatial",
    ),
    "nothing to pool": (
        lambda: ops.global_avg_pool(X[0, 0]),
        "global_avg_pool: x of shape (6, 3) has no spatial axes to pool",
    ),
    "indices of another shape": (
        lambda: ops.max_unpool(POOLED, INDICES[..., :1], (6, 6)),
        "max_unpool: indices of shape (2, 3, 3, 1) and dtype int32 do not match y of shape (2, 3, 3, 3)",
    ),
    "indices not whole": (lambda: ops.max_unpool(POOLED, POOLED, (6, 6)), "indices of .* dtype float32 do not match"),
    "indices too large": (lambda: ops.max_unpool(POOLED, INDICES + 36, (6, 6)), "indices run from 36 to 36, .*0 to 35"),
    "indices negative": (lambda: ops.max_unpool(POOLED, INDICES - 1, (6, 6)), "indices run from -1 to -1"),
    "overlap name": (
        lambda: ops.max_unpool(POOLED, INDICES, (6, 6), overlap="sum"),
        "unknown overlap='sum'; .*'add', 'set'",
    ),
    "upsampling name": (
        lambda: ops.upsample(X, (2, 2), method="linear"),
        "upsample: unknown method='linear'; .*'bilinear'",
    ),
    "corners of nearest": (
        lambda: ops.upsample(X, (2, 2), align_corners=True),
        "align_corners=True has no effect with",
    ),
    "scale 0": (lambda: ops.upsample(X, (2, 0)), "upsample: scale=(2, 0) must be at least 1"),
    "relu rule": (lambda: ops.relu(X, rule="guide"), "relu: unknown rule='guide'; did you mean 'guided'"),
    "lrn convention": (
        lambda: ops.local_response_norm(X, convention="caffe"),
        "unknown convention='caffe'; .*'paper', 'torch'",
    ),
    "lrn k": (lambda: ops.local_response_norm(X, k=0), "local_response_norm: k=0 must be a number greater than 0"),
    "lrn alpha": (lambda: ops.local_response_norm(X, alpha=-1), "local_response_norm: alpha=-1 must be .* at least 0"),
    "lrn size": (lambda: ops.local_response_norm(X, size=0), "local_response_norm: size=0 must be at least 1"),
    "lrn axes": (
        lambda: ops.local_response_norm(X[0, 0], size=(3, 3)),
        "x of shape (6, 3) has too few axes for size=(3, 3)",
    ),
    "batch norm vector": (
        lambda: ops.batch_norm(X, mean=jnp.ones(6), variance=jnp.ones(3)),
        "batch_norm: mean has shape (6,), but x of shape (2, 6, 6, 3) has 3 channels; channels come last",
    ),
    "batch norm epsilon": (
        lambda: ops.batch_norm(X, mean=jnp.ones(3), variance=jnp.ones(3), epsilon=-1e-5),
        "batch_norm: epsilon=-1e-05 must be a number, at least 0",
    ),
    "dropout rate 1.5": (lambda: ops.dropout(X, 1.5, key=KEY), "dropout: rate=1.5 must be a number in [0, 1];"),
    "dropout axis": (
        lambda: ops.dropout(X, 0.5, key=KEY, broadcast_dims=(4,)),
        "broadcast_dims=(4,) names axis 4, but x",
    ),
    "labels of another shape": (
        lambda: ops.softmax_cross_entropy(jnp.ones((8, 10)), jnp.ones((8, 1), int)),
        "integer labels of shape (8, 1) do not go with logits of shape (8, 10); give integers of shape (8,)",
    ),
    "labels as booleans": (
        lambda: ops.softmax_cross_entropy(jnp.ones((8, 10)), jnp.ones((8, 10), bool)),
        "bool labels of shape (8, 10) do not go with logits",
    ),
    "smoothing": (
        lambda: ops.softmax_cross_entropy(jnp.ones((8, 10)), jnp.ones(8, int), label_smoothing=1),
        "label_smoothing=1 must be at least 0 and less than 1",
    ),
    "no maps to drop": (
        lambda: ops.spatial_dropout(X[0, 0], 0.5, key=KEY),
        "spatial_dropout: x of shape (6, 3) has no spatial axes",
    ),
    "lrn window": (lambda: ops.local_response_norm(X, size=()), "local_response_norm: size=() must be one int for"),
    "centers": (
        lambda: ops.rbf_output(jnp.ones((8, 84)), jnp.ones((84, 10))),
        "rbf_output: centers of .*(classes, 84)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_call(name):
    call, expected = CASES[name]
    pattern = ".*".join(re.escape(part) for part in expected.split(".*"))
    with pytest.raises(UsageError, match=pattern) as caught:
        call()
    assert "\n" not in str(caught.value)
