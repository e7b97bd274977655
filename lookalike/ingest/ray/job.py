"""`lookalike ingest --engine ray`: the same job, with a cluster to do the work."""

import os
from dataclasses import replace
from functools import cache, partial
from typing import Any

import click

from lookalike.encode.models.weights import resolve_checkpoint
from lookalike.encode.process_tuning import MAX_PARALLEL_BATCHES
from lookalike.ingest.job import Job
from lookalike.ingest.options import load_engine
from lookalike.ingest.pipeline.stages import PipelineLimits
from lookalike.schema.errors import BadSettings


def run_on_ray(job: Job, options: dict[str, Any]) -> Job:
    """Have a cluster do the work of a job, as much at once as it can take.

    Raises BadSettings where Ray cannot be used, EncoderUnavailable where it is not reached.
    """
    if options["profile"]:
        raise BadSettings("--profile measures this process, and with --engine ray the work is elsewhere; leave it out")
    if options["decode_processes"]:
        raise BadSettings("with --engine ray, Ray's workers decode; leave out --decode-processes")
    # Read as Ray is imported. What it says of workers that die it would print among our results; we say it.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        from lookalike.ingest.ray.actors import RayEngine
        from lookalike.ingest.ray.cluster import connect, read
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise BadSettings("--engine ray needs Ray: pip install 'lookalike[ray]', here and on its machines") from error
    there = connect(options["device"])
    # Twice the CPUs: the next image waits for each.
    pace = PipelineLimits(
        options["num_workers"] or 2 * there.cpus, job.pace.max_pixels, there.networks * (MAX_PARALLEL_BATCHES + 1)
    )
    # The other options, a token among them, are no business of the workers.
    theirs = {key: options[key] for key in ("device", "dtype", "engine", "batch_size")}
    tell = partial(click.echo, err=True)
    load = cache(lambda name: RayEngine(partial(load_engine, resolve_checkpoint(name), theirs), there, tell))
    return replace(job, load=load, pace=pace, read=partial(read, allow_private=options["allow_private_urls"]))
