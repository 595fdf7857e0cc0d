"""Trains, evaluates and uses networks; also installed as the command ``cnn-jax``.

{0} --config=lenet5_digits
{0} --config=lenet5_digits --mode=sweep --sweep='optimizer.learning_rate=log(1e-3,1)'
{0} --mode=predict --workdir=runs/lenet5_digits-20260101-120000 --images=a.png,folder/
"""

import os
import sys

from absl import flags
from ml_collections import config_flags

from cnn_jax import native
from cnn_jax.cli import command_line
from cnn_jax.cli.config_flag import COMMAND_LINE, ConfigParser
from cnn_jax.runtime import command, huge_pages, signals, xla
from cnn_jax.runtime.files import user_path
from cnn_jax.runtime.terminal import say
from cnn_jax.sweep import flags as sweep_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The experiment: the name of a config that is included in cnn_jax, such as lenet5_digits, or a file, such as "
    "my_own.py; both may end in ':variant'. Or the folder of a run, whose config is used.",
    sys_argv=COMMAND_LINE,
)
_PARSER = flags.FLAGS["config"].parser = ConfigParser()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's folder. By default a new one, runs/<config>-<time>; the run in an old one is continued."
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "eval", "predict", "explain", "explore", "summary", "sweep", "sweep-worker"],
    "train: train, evaluate and write the report. eval: evaluate a checkpoint on the full test set. "
    "predict: predict your own images. explain: write a page about what the network responds to in images. "
    "explore: write a page that computes the network in the browser while you draw. "
    "summary: print the network's layers. sweep: train with many values of the config; continues or shows the sweep in "
    "--workdir. sweep-worker: train trials of a sweep that runs in another process.",
)
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "latest", ["latest", "best"], "For eval, predict, explain and explore: the checkpoint to use."
)
_IMAGES = flags.DEFINE_multi_string(
    "images",
    [],
    "For predict and explain: images and folders of images, separated by commas or spaces, such as --images *.png. "
    "By default explain uses the first test images.",
)
_WORDS = flags.DEFINE_multi_string(
    "words",
    [],
    "For predict with a network that makes images of words: what to make, such as 'a sneaker' or 'nine boots'. Several "
    "by repeating the flag.",
)
_COUNT = flags.DEFINE_integer(
    "count", None, "For predict with a network that makes images: how many, of all words without a number of their own."
)
_SEED = flags.DEFINE_integer("seed", None, "For predict with a network that makes images: the seed of its noise.")
_METHODS = flags.DEFINE_list(
    "methods",
    [],
    "For explain: names of methods, such as saliency,guided_backpropagation,grad_cam,occlusion; or style alone.",
)
_STYLE = flags.DEFINE_string("style", None, "For explain --methods=style: the image whose style the images get.")
_TARGET = flags.DEFINE_string(
    "target", None, "For explain: a class, or a unit such as c3/5 (activation/channel). Default: the predicted class."
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Also write this file. For predict and eval: .csv. For summary: .csv, .md, .json, or .png for a figure. For "
    "explain: a folder, by default 'explain' in the run's folder. For explore: .html, without which the page is live.",
)
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "For explore without --output: the address to listen on. Any but this one needs a token."
)
_OPEN = flags.DEFINE_bool("open", False, "For explore without --output: open the live page in a browser.")
_PROFILE = flags.DEFINE_integer(
    "profile", 0, "For train: first profile so many steps, and print where the trace is.", lower_bound=0
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One run in several processes, which the scheduler started.")
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "Several processes: host:port of the first process.")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "Several processes: the number of processes.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Several processes: the number of this process, from 0.")
flags.adopt_module_key_flags(sweep_flags)
_DEBUG = flags.DEFINE_bool("debug", False, "Show tracebacks of errors, and the settings of XLA and memory.")


def main() -> int:
    """Runs the command line and returns the exit code."""
    huge_pages.restart_with_huge_pages()
    added = xla.apply_recommended_flags(os.environ)  # before anything imports jax
    program = sys.modules["__main__"]
    program.__doc__ = (__doc__ or "").format(command.command_name())  # shown by --help
    for flag in flags.FLAGS.get_key_flags_for_module(__name__):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    return command_line.run(lambda others: _run(added, others), sys.argv)


def _run(added_xla_flags: list[str], others: list[str]) -> None:
    """Runs the mode with the experiment of the config, or a sweep."""
    native.enable()
    if _MODE.value.startswith("sweep"):
        command_line.sweep(_CONFIG.value, _WORKDIR.value, worker=_MODE.value == "sweep-worker")
        return
    command_line.join_processes(
        _COORDINATOR.value, _PROCESSES.value, _PROCESS.value, scheduler=_DISTRIBUTED.value, workdir=_WORKDIR.value
    )
    config, workdir = command_line.config_and_workdir(_CONFIG.value, _WORKDIR.value, _MODE.value)
    from cnn_jax import experiments  # imports jax, which must not happen before join_processes

    experiments.check(config, complete=not (_CONFIG.value is None or _PARSER.is_of_run))
    experiment = experiments.find(config)
    output = None if _OUTPUT.value is None else str(user_path(_OUTPUT.value))
    if _DEBUG.value:
        say(f"{xla.describe(added_xla_flags)}; {huge_pages.describe()}")
    with signals.EndOnSignal():
        match _MODE.value:
            case "train":
                experiment.train(config, workdir, profile=_PROFILE.value)
            case "eval":
                experiment.evaluate(config, workdir, checkpoint=_CHECKPOINT.value, output=output)
            case "predict":
                images = command_line.image_paths([*_IMAGES.value, *others])
                made = {"words": _WORDS.value or None, "count": _COUNT.value, "seed": _SEED.value}
                given = {name: value for name, value in made.items() if value is not None}
                experiment.predict(config, workdir, images=images, output=output, checkpoint=_CHECKPOINT.value, **given)
            case "explain":
                experiment.explain(
                    config,
                    workdir,
                    images=command_line.image_paths([*_IMAGES.value, *others]),
                    methods=_METHODS.value,
                    style=None if _STYLE.value is None else str(user_path(_STYLE.value)),
                    target=_TARGET.value,
                    output=output,
                    checkpoint=_CHECKPOINT.value,
                )
            case "explore":
                experiment.explore(
                    config,
                    workdir,
                    output=output,
                    checkpoint=_CHECKPOINT.value,
                    host=_HOST.value,
                    open_browser=_OPEN.value,
                )
            case "summary":
                experiment.summary(config, output=output)
