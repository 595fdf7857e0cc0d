"""A program in plain Flax. A test also runs it with its first import replaced by this project."""

from flax.nnx import BatchNorm, Conv, Dropout, Linear, avg_pool, max_pool  # isort: skip

import jax
import jax.numpy as jnp
import optax
from flax import nnx


class Net(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.conv1 = Conv(1, 8, kernel_size=(3, 3), rngs=rngs)
        self.norm1 = BatchNorm(8, momentum=0.9, rngs=rngs)
        self.conv2 = Conv(8, 8, kernel_size=(3, 3), strides=(2, 2), use_bias=False, rngs=rngs)
        self.norm2 = BatchNorm(8, use_running_average=False, rngs=rngs)
        self.dropout1 = Dropout(rate=0.25, broadcast_dims=(1, 2), rngs=rngs)
        self.dropout2 = Dropout(0.5, rngs=rngs)
        self.linear = Linear(2 * 2 * 8, 3, rngs=rngs)

    def __call__(self, x):
        x = max_pool(nnx.relu(self.norm1(self.conv1(x))), (2, 2), strides=(2, 2))
        x = self.dropout1(nnx.relu(self.norm2(self.conv2(x))))
        x = avg_pool(x, (2, 2), strides=(1, 1), padding="SAME")
        return self.linear(self.dropout2(x.reshape(x.shape[0], -1)))


@nnx.jit
def train_step(model, optimizer, images, labels):
    def loss_of(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


@nnx.jit
def evaluate(model, images):
    return model(images)


def main():
    """The losses, the outputs in evaluation mode, and the final state of the model."""
    images = jax.random.normal(jax.random.key(1), (16, 8, 8, 1)) + 1
    labels = jnp.arange(16) % 3
    model = Net(rngs=nnx.Rngs(params=0, dropout=1))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)
    losses, outputs = [], []
    for _ in range(2):
        model.train()
        losses += [train_step(model, optimizer, images, labels) for _ in range(3)]
        model.eval()
        outputs.append(evaluate(model, images))
    return losses, outputs, nnx.state(model)
