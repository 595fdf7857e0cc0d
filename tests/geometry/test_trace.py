"""The table of a network that has more in it than LeNet: strides, groups, padding, nested parts."""

from flax import nnx
from rich.console import Console

from cnn_jax import geometry, nn

SHAPE = (9, 7, 4)


def network() -> nn.Sequence:
    rngs = nnx.Rngs(0)
    inner = nn.Sequence({"conv": nn.Conv(4, 8, (3, 3), strides=2, padding="SAME", feature_group_count=2, rngs=rngs)})
    return nn.Sequence({"block": inner, "pool": nn.MaxPool((2, 2)), "flatten": nn.flatten})


def test_rows_are_counted_by_hand() -> None:
    conv, pool, flatten = geometry.trace(network(), SHAPE)
    assert (conv.name, conv.kind, conv.output_shape) == ("block/conv", "Conv", (5, 4, 8))
    assert (conv.kernel_size, conv.strides, conv.padding) == ((3, 3), (2, 2), "SAME")
    assert conv.parameters == 3 * 3 * 2 * 8 + 8  # each output channel sees the two channels of its group
    assert conv.multiply_adds == 5 * 4 * (3 * 3 * 2 * 8)
    assert (pool.output_shape, pool.kernel_size, pool.strides, pool.parameters) == ((2, 2, 8), (2, 2), (2, 2), 0)
    assert (flatten.kind, flatten.output_shape, flatten.kernel_size) == ("flatten", (32,), None)


def test_printed_table_fits_eighty_columns_and_has_the_totals() -> None:
    console = Console(width=80, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(geometry.format_table(geometry.trace(network(), SHAPE), title="network"))
    lines = captured.get().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "…" not in captured.get()
    assert lines[-2].split() == ["total", "152", "2,880"]
