"""The flags of ``launch.py --mode=sweep``; must not import jax."""

from absl import flags

SWEEP = flags.DEFINE_string(
    "sweep",
    None,
    "For sweep: the search space, instead of the config file's get_hyper(hyper): "
    "'optimizer.learning_rate=log(1e-3,1); optimizer.name=sgd,adam; seed=0..4'. A key has a list of values, integers "
    "a..b, or a range: uniform(a,b), log(a,b), int(a,b), logint(a,b).",
)
TRIALS = flags.DEFINE_integer(
    "trials",
    None,
    "For sweep: the number of points. By default all combinations of lists, else 50. To extend a sweep, continue it "
    "with a larger number.",
    lower_bound=1,
)
SAMPLER = flags.DEFINE_string(
    "sampler",
    None,
    "For sweep: how points are chosen. grid (the default for lists); sobol (the default else, also named random) and "
    "halton: evenly spread; tpe, cmaes and gp: learn from the results.",
)
flags.DEFINE_alias("engine", "sampler")  # its name in earlier versions
PRUNER = flags.DEFINE_string(
    "pruner", "none", "For sweep: ends bad trials early: none, halving (successive halving) or hyperband."
)
SEEDS = flags.DEFINE_integer(
    "seeds", 1, "For sweep: the number of runs of each point, with seeds from config.seed on.", lower_bound=1
)
METRIC = flags.DEFINE_string(
    "metric",
    None,
    "For sweep: the 'split/metric' to compare trials by; losses and errors are minimised. By default the metric that "
    "chooses the best checkpoint.",
)
RUNNER = flags.DEFINE_enum(
    "runner",
    "local",
    ["local", "vectorized", "ray", "slurm"],
    "For sweep: local: processes on this machine. vectorized: trials that differ only in numbers, in one program. ray: "
    "tasks on a Ray cluster. slurm: jobs with submitit.",
)
WORKERS = flags.DEFINE_integer(
    "workers",
    None,
    "For sweep: how many trials run at the same time. By default one per GPU, else one per core, at most 8.",
    lower_bound=1,
)
BATCH = flags.DEFINE_integer(
    "batch", 64, "For sweep and sweep-worker with --runner=vectorized: the most trials in one program.", lower_bound=1
)
AHEAD = flags.DEFINE_integer(
    "ahead",
    None,
    "For sweep with a sampler that learns: how many points may be started before the result of the first is known. By "
    "default 1 with one worker, else twice the number of workers.",
    lower_bound=1,
)
STORAGE = flags.DEFINE_string(
    "storage",
    None,
    "For sweep and sweep-worker: the database of the trials, such as postgresql://user@host/db, "
    "for workers on several machines. By default SQLite in the workdir.",
)
REPORTS = flags.DEFINE_bool("reports", True, "For sweep: write a report.html for every trial.")
RAY_ADDRESS = flags.DEFINE_string("ray_address", "auto", "For sweep with --runner=ray: the cluster.")
CPUS = flags.DEFINE_float(
    "cpus_per_trial", 1.0, "For sweep with --runner=ray or slurm: cores of each trial.", lower_bound=0.0
)
GPUS = flags.DEFINE_float(
    "gpus_per_trial", 0.0, "For sweep with --runner=ray or slurm: GPUs of each trial.", lower_bound=0.0
)
SLURM = flags.DEFINE_list(
    "slurm", [], "For sweep with --runner=slurm: options of the jobs, such as partition=gpu,timeout_min=240."
)
