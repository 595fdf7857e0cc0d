"""The table of a network with strides, groups, padding and nested parts, and its costs."""

import csv
import io
import json
import subprocess
import sys

import jax.numpy as jnp
import pytest
from flax import nnx
from rich.console import Console

from cnn_jax import geometry, nn, ops

SHAPE = (9, 7, 4)
RNGS = nnx.Rngs(0)


def network() -> nn.Sequence:
    options = {"strides": 2, "padding": "SAME", "feature_group_count": 2}
    inner = nn.Sequence({"conv": nn.Conv(4, 8, (3, 3), **options, rngs=nnx.Rngs(0))})
    return nn.Sequence({"block": inner, "pool": nn.MaxPool((2, 2)), "flatten": nn.flatten})


@pytest.fixture(scope="module")
def rows() -> list[geometry.Row]:
    return geometry.trace(network(), SHAPE)


def test_rows_are_counted_by_hand(rows: list[geometry.Row]) -> None:
    conv, pool, flatten = rows
    assert (conv.name, conv.kind, conv.output_shape) == ("block/conv", "Conv", (5, 4, 8))
    assert (conv.kernel_size, conv.strides, conv.padding) == ((3, 3), (2, 2), "SAME")
    assert conv.parameters == 3 * 3 * 2 * 8 + 8  # each output channel is connected to the two channels of its group
    assert conv.multiply_adds == 5 * 4 * (3 * 3 * 2 * 8)
    assert conv.connections == conv.multiply_adds + 5 * 4 * 8
    assert conv.activation_bytes == 5 * 4 * 8 * 4
    assert (pool.output_shape, pool.kernel_size, pool.strides, pool.parameters) == ((2, 2, 8), (2, 2), (2, 2), 0)
    assert pool.connections == 2 * 2 * 8 * 4
    assert (flatten.kind, flatten.output_shape, flatten.kernel_size) == ("flatten", (32,), None)


def test_fields_are_followed_by_hand(rows: list[geometry.Row]) -> None:
    conv, pool, flatten = rows
    # 9 rows at stride 2 are padded by 1 above, 7 columns by 1 on the left.
    assert (conv.receptive_field.size, conv.receptive_field.first_centre) == ((3, 3), (0, 0))
    assert (pool.receptive_field.size, pool.receptive_field.jump) == ((5, 5), (4, 4))
    assert pool.receptive_field.interval((1, 0)) == ((3, 7), (-1, 3))
    assert flatten.receptive_field == pool.receptive_field


def test_a_matrix_product_sees_all_of_the_map() -> None:
    layers = {"conv": nn.Conv(1, 2, (3, 3), padding="VALID", rngs=RNGS), "flatten": nn.flatten, "relu": ops.relu}
    model = nn.Sequence({**layers, "linear": nn.Linear(12 * 2, 5, rngs=RNGS), "tanh": jnp.tanh})
    fields = [row.receptive_field for row in geometry.trace(model, (5, 6, 1))]
    assert [field.size for field in fields] == [(3, 3)] * 3 + [(5, 6)] * 2
    assert fields[-1].interval((0, 0)) == ((0, 4), (0, 5))


def test_a_matrix_product_of_channels_sees_its_position() -> None:
    model = nn.Sequence({"conv": nn.Conv(1, 2, (3, 3), rngs=RNGS), "linear": nn.Linear(2, 5, rngs=RNGS)})
    assert geometry.trace(model, (5, 6, 1))[-1].receptive_field.size == (3, 3)


def test_pools_that_are_given_their_output() -> None:
    model = nn.Sequence(
        {"even": nn.AdaptiveAvgPool((4, 6)), "uneven": nn.AdaptiveAvgPool((3, 4)), "global": ops.global_avg_pool}
    )
    even, uneven, whole = (row.receptive_field for row in geometry.trace(model, (8, 12, 1)))
    assert (even.size, even.jump) == ((2, 2), (2, 2))
    assert uneven.size == (4, 4)  # rows 0 and 1, 1 and 2, 2 and 3 of pairs; columns likewise
    assert (whole.size, whole.interval((0, 0))) == ((8, 12), ((0, 7), (0, 11)))


def test_transposed_convolutions_multiply_only_what_is_there() -> None:
    layer = nn.ConvTranspose(3, 2, (4, 4), 2, rngs=RNGS)
    (row,) = geometry.trace(nn.Sequence({"up": layer}), (5, 6, 3))
    assert row.output_shape == (10, 12, 2)
    assert row.strides == (2, 2)
    assert row.multiply_adds == 5 * 6 * 4 * 4 * 3 * 2  # each input is multiplied with the whole kernel


def test_nothing_is_allocated() -> None:
    abstract = nnx.eval_shape(network)
    assert geometry.trace(abstract, SHAPE) == geometry.trace(network(), SHAPE)


def test_the_table_of_vgg_e_costs_little() -> None:
    """Under 3 seconds of CPU time and 600 MB, of which its parameters alone would be 575 MB."""
    program = (
        "import re, time\n"
        "from flax import nnx\n"
        "from cnn_jax import geometry, models\n"
        "start = time.process_time()\n"
        "model = nnx.eval_shape(lambda: models.create('vgg_e', rngs=nnx.Rngs(0)))\n"
        "total = geometry.total(geometry.trace(model, (224, 224, 3)))\n"
        "seconds = time.process_time() - start\n"
        # Not getrusage: a process inherits its peak from the process that started it.
        "peak = re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]\n"
        "print(total.parameters, seconds, int(peak) / 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parameters, seconds, megabytes = map(float, done.stdout.split())
    assert parameters == 143_667_240
    assert seconds < 3
    assert megabytes < 600


def printed(rows: list[geometry.Row], width: int | None) -> list[str]:
    console = Console(width=width or 200)
    with console.capture() as captured:
        console.print(geometry.format_table(rows, title="network", width=width))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_printed_table_fits_eighty_columns_and_has_the_totals(rows: list[geometry.Row]) -> None:
    lines = printed(rows, 80)
    assert all(len(line) <= 80 and "…" not in line for line in lines)
    assert lines[-2].split() == ["total", "152", "2,880"]
    assert lines[-1] == "columns that did not fit: centre, memory, connections, padding"


def test_printed_table_has_everything_where_there_is_room(rows: list[geometry.Row]) -> None:
    lines = printed(rows, None)
    assert lines[1].split() == list(geometry.HEADINGS)
    assert " ".join(lines[3].split()) == "block/conv Conv 5x4x8 3x3 2x2 SAME 3 2 0 152 2,880 3,040 640 B"


def test_csv_has_one_number_a_cell(rows: list[geometry.Row]) -> None:
    conv, pool, flatten = csv.DictReader(io.StringIO(geometry.to_csv(rows)))
    assert (conv["output_shape"], conv["multiply_adds"], conv["padding"]) == ("5x4x8", "2880", "SAME")
    assert (pool["receptive_field_size"], pool["receptive_field_jump"]) == ("5x5", "4x4")
    assert flatten["kernel_size"] == ""


def test_json_has_totals_and_numbers(rows: list[geometry.Row]) -> None:
    document = json.loads(geometry.to_json(rows, title="network"))
    assert document["title"] == "network"
    assert document["total"] == {
        "parameters": 152,
        "multiply_adds": 2880,
        "connections": 3040 + 128,
        "activation_bytes": 4 * (160 + 32 + 32),
    }
    assert document["layers"][1]["receptive_field_first_centre"] == [1, 1]


def test_markdown_is_a_table(rows: list[geometry.Row]) -> None:
    lines = geometry.to_markdown(rows, title="network").splitlines()
    assert lines[0] == "## network"
    assert {line.count("|") for line in lines[2:8]} == {len(geometry.HEADINGS) + 1}
    assert "**2,880**" in lines[7]
