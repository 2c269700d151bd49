"""Shards of features on a Ray cluster: every job is one task of Ray Data, and writes its shard into a shared folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from gama.data.shards import Job, Shard, job_of, job_text, make_shard, single_thread
from gama.errors import MissingPackageError


def on_ray(jobs: Sequence[Job], address: str | None) -> Iterator[Shard]:
    """Run jobs on the cluster at ``address`` (``auto`` for the one of this machine; None starts one here).

    Every machine needs gama-audio and sees the clips and the folder under the same paths. Shards come in any order.

    Raises:
        MissingPackageError: without Ray.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingPackageError(f"--engine ray needs Ray: {error}", "pip install 'gama-audio[ray]'") from error
    if not jobs:
        return
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False)
    rows = ray.data.from_items([{"job": job_text(job)} for job in jobs], override_num_blocks=len(jobs))
    for row in rows.map(_made).iter_rows():
        found = json.loads(row["shard"])
        yield Shard(tuple(map(tuple, found["done"])), tuple(map(tuple, found["failed"])))


def _made(row: dict[str, Any]) -> dict[str, Any]:
    single_thread()
    shard = make_shard(job_of(row["job"]))
    return {"shard": json.dumps({"done": shard.done, "failed": shard.failed})}
