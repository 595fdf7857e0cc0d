"""The flags of ``launch.py --mode=sweep``; must not import jax."""

from absl import flags

SWEEP = flags.DEFINE_string(
    "sweep",
    None,
    "For sweep: what to try, instead of the config file's get_hyper(hyper): 'optimizer.learning_rate=log(1e-3,1); "
    "optimizer.name=sgd,adam; seed=0..4'. A key takes the values listed, whole numbers a..b, or a range: uniform(a,b), "
    "log(a,b), int(a,b), logint(a,b).",
)
TRIALS = flags.DEFINE_integer(
    "trials",
    None,
    "For sweep: how many points to try. Of lists by default all combinations, else 50. A sweep that is "
    "continued with a larger number gets more.",
    lower_bound=1,
)
SAMPLER = flags.DEFINE_string(
    "sampler",
    None,
    "For sweep: where points come from. grid (the default for lists); random or sobol (the default else), halton: "
    "evenly spread; tpe, cmaes, gp: learn from the results.",
)
flags.DEFINE_alias("engine", "sampler")  # its name in earlier versions
PRUNER = flags.DEFINE_string(
    "pruner", "none", "For sweep: ends bad trials early. none, halving (successive halving), hyperband."
)
SEEDS = flags.DEFINE_integer(
    "seeds", 1, "For sweep: runs of each point, with seeds from config.seed on.", lower_bound=1
)
METRIC = flags.DEFINE_string(
    "metric",
    None,
    "For sweep: 'split/metric' to compare by; losses and errors are minimised. By default what chooses "
    "the best checkpoint.",
)
RUNNER = flags.DEFINE_enum(
    "runner",
    "local",
    ["local", "vectorized", "ray", "slurm"],
    "For sweep: local: processes on this machine. vectorized: trials that differ in numbers only, in one program. ray: "
    "tasks on a Ray cluster. slurm: jobs through submitit.",
)
WORKERS = flags.DEFINE_integer(
    "workers",
    None,
    "For sweep: how many trials run at a time. By default one a GPU, else one a core, 8 at most.",
    lower_bound=1,
)
BATCH = flags.DEFINE_integer(
    "batch", 64, "For sweep and sweep-worker with --runner=vectorized: the most trials in one program.", lower_bound=1
)
AHEAD = flags.DEFINE_integer(
    "ahead",
    None,
    "For sweep with a sampler that learns: how many points may be begun before the result of the first "
    "is known. By default 1 with one worker, else twice as many as there are workers.",
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
