"""The keys of a config for training, which all experiments share, and the objects built from them."""

from collections.abc import Sequence

import jax
import optax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from cnn_jax import schema
from cnn_jax.errors import UsageError
from cnn_jax.train.durations import duration_in_steps
from cnn_jax.train.optimizers import create_optimizer
from cnn_jax.train.parallel import DataParallel
from cnn_jax.train.plan import Plan
from cnn_jax.train.program import Hyperparameters
from cnn_jax.train.schedules import learning_rate_schedule
from cnn_jax.train.step import Loss, Step, make_step


def default_settings() -> ConfigDict:
    """Every key with its default. Durations are text such as ``'500 steps'``, ``'5 epochs'`` or ``'10_000 examples'``.

    >>> default_settings().optimizer.name
    'nesterov'
    """
    return ConfigDict(
        {
            "batch_size": 128,
            "accumulate": 1,  # compute the gradient of a batch in so many parts, to save memory
            "epochs": 20,
            "duration": "",  # the duration of the run; if set, epochs is not used
            "evaluate_every": "1 epoch",
            "early_stopping": "",  # a duration without improvement after which the run ends; empty for never
            "target": 0.0,  # a value of the monitored metric, such as 0.99, at which the run ends; 0 for none
            "keep_history": 0,  # how many more checkpoints to keep, at logarithmically spaced steps; 0 for none
            "steps_per_call": 100,
            "optimizer": {
                "name": "nesterov",
                "learning_rate": 0.05,
                "momentum": 0.9,
                "weight_decay": 0.0,
                "clip_norm": 0.0,  # 0 for no limit
                "lookahead": 0,  # fast steps between two updates of the slow weights; 0 for none
                "schedule": "cosine",
                "warmup": "0 steps",
                "end_factor": 0.0,
                "drops": (),  # durations from the start, for the schedule 'step'
                "drop_factor": 0.1,
                "rate_factors": (),  # (pattern of parameter names, factor): (("*/bias", 2.0),) for twice the rate
                "max_norms": (),  # (pattern of parameter names, largest norm of the weights into a unit)
            },
            "freeze": (),  # patterns of the paths of parameters that are not trained, such as 'c1/*'
            "ema_decay": 0.0,  # decay of a moving average of the weights, which is evaluated; 0 for none
            "dtype": "float32",  # of the network's computation; parameters and statistics are float32
            "parallel": "jit",  # or 'pmap'
            "shard_parameters": False,
            "on_nonfinite": "stop",  # or 'skip'
            "max_skipped": 10,
            "debug_nans": False,  # name the line of code of the first NaN; slow
        }
    )


TUPLE_EXAMPLES = {
    "optimizer.drops": ("30 epochs", "60 epochs"),
    "optimizer.rate_factors": (("*/bias", 2.0),),
    "optimizer.max_norms": (("output/kernel", 3.0),),
    "freeze": ("c1/*",),
}
"""Example values of keys whose default is an empty tuple; they determine the types of the elements."""

MAY_CHANGE = ("epochs", "duration", "early_stopping", "target", "keep_history", "data.workers", "data.data_dir")
"""Keys that may change when a run is continued: how long it trains, and keys without an effect on its results."""

TRACED_HYPERPARAMETERS = (
    *(f"optimizer.{name}" for name in ("learning_rate", "momentum", "weight_decay", "clip_norm", "end_factor")),
    "ema_decay",
)
"""Keys whose values are arguments of compiled functions. A change from or to 0 recompiles. Experiments add keys."""


def traced_hyperparameters(config: ConfigDict, keys: Sequence[str]) -> dict[str, float]:
    """The values of a config that are arguments of its compiled functions.

    >>> traced_hyperparameters(default_settings(), TRACED_HYPERPARAMETERS)
    {'optimizer.learning_rate': 0.05, 'optimizer.momentum': 0.9}
    """
    flat = schema.flatten(config)
    return {key: flat[key] for key in keys if flat.get(key)}


def with_hyperparameters(config: ConfigDict, values: Hyperparameters) -> ConfigDict:
    """A copy of a config with some values replaced by numbers, or by tracers while a function is compiled.

    >>> with_hyperparameters(default_settings(), {"optimizer.momentum": jax.numpy.float32(0.5)}).optimizer.momentum
    Array(0.5, dtype=float32)
    """
    changed = config.copy_and_resolve_references()
    with changed.ignore_type():
        changed.update_from_flattened_dict(dict(values))
    return changed


def shape_of(config: ConfigDict, keys: Sequence[str]) -> str:
    """What compiled functions depend on: the config without its seed, and of traced keys only whether they are 0.

    >>> config, other = default_settings(), default_settings()
    >>> other.optimizer.learning_rate = 0.1
    >>> shape_of(config, TRACED_HYPERPARAMETERS) == shape_of(other, TRACED_HYPERPARAMETERS)
    True
    >>> other.optimizer.momentum = 0.0
    >>> shape_of(config, TRACED_HYPERPARAMETERS) == shape_of(other, TRACED_HYPERPARAMETERS)
    False
    """
    flat = schema.flatten(config)
    return repr({key: bool(value) if key in keys else value for key, value in flat.items() if key != "seed"})


def make_plan(config: ConfigDict, num_examples: int) -> Plan:
    """The plan of a config for a training set of this many examples.

    >>> config = default_settings()
    >>> config.duration, config.early_stopping = "500 steps", "2 epochs"
    >>> plan = make_plan(config, 12800)
    >>> plan.total_steps, plan.evaluate_every, plan.patience
    (500, 100, 200)
    """
    epoch = Plan(batch_size=config.batch_size, num_examples=num_examples, total_steps=1, evaluate_every=1)
    for name in ("epochs", "batch_size", "accumulate"):
        if config[name] < 1:
            raise UsageError(f"{name}={config[name]} must be at least 1")
    if config.batch_size % config.accumulate:
        raise UsageError(f"accumulate={config.accumulate} does not divide batch_size={config.batch_size}")
    steps = _Steps(epoch)
    return Plan(
        batch_size=config.batch_size,
        num_examples=num_examples,
        total_steps=steps(config.duration or f"{config.epochs} epochs", "duration"),
        evaluate_every=steps(config.evaluate_every, "evaluate_every"),
        steps_per_call=1 if config.debug_nans else config.steps_per_call,
        patience=steps(config.early_stopping, "early_stopping") if config.early_stopping else 0,
        target=config.target or None,
        max_skipped=config.max_skipped if config.on_nonfinite == "skip" else 0,
        keep_history=config.get("keep_history", 0),  # missing in the configs of earlier versions
    )


def make_schedule(config: ConfigDict, plan: Plan) -> optax.Schedule:
    """The learning rate of a config as a function of the step.

    Args:
      config: A config with the keys of :func:`default_settings`.
      plan: The plan of the run.
    """
    settings, steps = config.optimizer, _Steps(plan)
    return learning_rate_schedule(
        settings.schedule,
        settings.learning_rate,
        total_steps=plan.total_steps,
        warmup_steps=steps(settings.warmup, "optimizer.warmup"),
        end_factor=settings.end_factor,
        drops=[steps(drop, "optimizer.drops") for drop in settings.drops],
        drop_factor=settings.drop_factor,
    )


def make_optimizer(config: ConfigDict, learning_rate: optax.Schedule, params: PyTree) -> optax.GradientTransformation:
    """The optimiser of a config.

    Args:
      config: A config with the keys of :func:`default_settings`.
      learning_rate: The schedule, see :func:`make_schedule`.
      params: The parameters, or their shapes.
    """
    settings = config.optimizer
    return create_optimizer(
        settings.name,
        learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        lookahead=settings.lookahead,
        rate_factors=settings.rate_factors,
        max_norms=settings.get("max_norms", ()),  # which runs of earlier versions lack
        params=params,
    )


def make_parallel(config: ConfigDict) -> DataParallel:
    """The devices of a config: all of them, which must divide its batch. Also sets ``jax_debug_nans``."""
    jax.config.update("jax_debug_nans", config.debug_nans)
    parallel = DataParallel(config.parallel, shard_parameters=config.shard_parameters)
    parallel.check_batch(config.batch_size)
    return parallel


def make_step_of(
    config: ConfigDict,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    parallel: DataParallel,
) -> Step:
    """The optimiser step of a config."""
    return make_step(
        loss,
        optimizer,
        accumulate=config.accumulate,
        ema_decay=config.ema_decay,
        on_nonfinite=config.on_nonfinite,
        learning_rate=learning_rate,
        parallel=parallel,
    )


class _Steps:
    """Converts durations to the steps of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._options = {"steps_per_epoch": plan.steps_per_epoch, "batch_size": plan.batch_size}

    def __call__(self, text: str, name: str) -> int:
        return duration_in_steps(text, name, **self._options)
