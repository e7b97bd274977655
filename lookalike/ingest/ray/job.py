"""`lookalike ingest --engine ray`: the same job, on a Ray cluster."""

import os
from dataclasses import replace
from functools import cache, partial

import click

from lookalike.encode.load_engine import load_engine
from lookalike.encode.models.weights import resolve_checkpoint
from lookalike.encode.process_tuning import MAX_PARALLEL_BATCHES
from lookalike.ingest.job import Job
from lookalike.ingest.options import IngestOptions
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.schema.errors import BadSettings


def move_to_ray(job: Job, options: IngestOptions) -> Job:
    """Return a job whose images are read, decoded and encoded on a cluster, as many at once as it has room for.

    Raises BadSettings when Ray cannot be used, and EncoderUnavailable when it is not reached.
    """
    if options.profile:
        raise BadSettings("--profile measures this process, but --engine ray works in others; leave it out")
    if options.engine.decode_processes:
        raise BadSettings("with --engine ray, Ray's workers decode; leave out --decode-processes")
    # Ray reads these when it is imported. It would print about dead workers among our results; RayEngine reports them.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        from lookalike.ingest.ray.actors import RayEngine
        from lookalike.ingest.ray.cluster import connect, read
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise BadSettings("--engine ray needs Ray: pip install 'lookalike[ray]', here and on its machines") from error
    cluster = connect(options.engine.device)
    # Twice the CPUs: while each works on an image, the next one waits for it.
    workers = options.engine.num_workers or 2 * cluster.cpus
    limits = PipelineLimits(workers, options.engine.max_pixels, cluster.actors * (MAX_PARALLEL_BATCHES + 1))
    in_actor = replace(options.engine, num_workers=None, decode_processes=0)
    report = partial(click.echo, err=True)
    load = cache(lambda name: RayEngine(partial(load_engine, resolve_checkpoint(name), in_actor), cluster, report))
    return replace(job, load_engine=load, limits=limits, read=partial(read, allow_private=options.urls.allow_private))
