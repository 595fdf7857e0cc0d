"""A small convolutional network with random images, as a task for tests of devices and processes."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_jax import nn, train

N, BATCH, STEPS = 48, 16, 6


def examples() -> train.Batch:
    generator = np.random.default_rng(0)
    images = generator.normal(size=(N, 6, 6, 2)).astype(np.float32)
    return {"image": images, "label": images[:, 1, 2, 0] + 0.5 * images[:, 4, 4, 1] ** 2}


def task(parallel: train.DataParallel, *, batch_norm: bool = True) -> train.Problem:
    def create(key: jax.Array) -> nn.Sequence:
        rngs = nnx.Rngs(key)
        # No bias before a batch normalisation, which cancels it: Adam would follow the rounding errors of its gradient.
        conv = nn.Conv(2, 8, (3, 3), padding="VALID", use_bias=not batch_norm, rngs=rngs)
        norm = {"norm": nn.BatchNorm(8, rngs=rngs)} if batch_norm else {}
        output = nn.Linear(128, 1, rngs=rngs)
        return nn.Sequence({"conv": conv, **norm, "relu": jax.nn.relu, "flatten": nn.flatten, "output": output})

    graph = nnx.split(nnx.eval_shape(lambda: create(jax.random.key(0))), nnx.Param, ...)[0]
    optimizer = train.create_optimizer("adam", 0.01)

    def init(key: jax.Array) -> train.TrainState:
        _, params, model_state = nnx.split(create(train.stream_key(key, "params")), nnx.Param, ...)
        return train.create_state(key, params, model_state, optimizer, ema=True)

    def errors(params, model_state, batch, **options):
        model = nnx.merge(graph, params, model_state)
        squares = (model(batch["image"], **options)[:, 0] - batch["label"]) ** 2
        return squares, nnx.state(model, nnx.Not(nnx.Param))

    def loss(params, model_state, batch, key):
        squares, model_state = errors(params, model_state, batch, train=True)
        return squares.mean(), ({"loss": (squares.sum(), jnp.float32(squares.size))}, model_state)

    def evaluate(state, batch):
        squares, _ = errors(state.params, state.model_state, batch, train=False)
        return {"loss": ((squares * batch["mask"]).sum(), batch["mask"].sum())}

    return train.Problem(
        init=init,
        step=train.make_step(loss, optimizer, ema_decay=0.9, parallel=parallel),
        evaluate=evaluate,
        train_examples=examples(),
        eval_examples={"test": examples()},
        metrics=[train.Metric("loss", better="lower")],
        monitor="test/loss",
    )


def plan(steps: int = STEPS) -> train.Plan:
    return train.Plan(batch_size=BATCH, num_examples=N, total_steps=steps, evaluate_every=3, steps_per_call=3)


def run(directory: Path, parallel: train.DataParallel, *, steps: int = STEPS, **options) -> train.Trained:
    directory.mkdir(parents=True, exist_ok=True)
    program = train.Program(task(parallel, **options), plan(steps), parallel=parallel)
    return train.train(program, seed=0, directory=directory)


def numbers(trained: train.Trained) -> dict[str, np.ndarray]:
    """All trained arrays, by name."""
    state = trained.state
    learned = {"params": state.params, "model_state": state.model_state, "opt_state": state.opt_state, "ema": state.ema}
    leaves = jax.tree_util.tree_leaves_with_path(learned)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
