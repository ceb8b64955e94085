"""`gansegctl status`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("dataset", type=options.PATH)
@options.json_flag
def command(dataset: Path, as_json: bool) -> None:
    """How far DATASET is, over all tasks and machines: shards done, running and missing, samples a second, time left.

    The rate is that of the last 64 shards. A shard runs while its process gives signs of life.
    """
    from gansegctl.pipeline.status import status_of

    told = status_of(dataset)
    if as_json:
        console.emit(told, True)
        return
    click.echo(f"{told['dataset']}: {told['samples']:,} of {told['planned']:,} samples ({told['stage']})")
    click.echo(f"shards: {told['done']} done, {len(told['running'])} running, {told['missing']} missing")
    for row in told["running"]:
        where = f"{row['host']}, process {row['process']}, task {row['task']}"
        click.echo(f"  shard {row['shard']}: {where}, sign of life {row['silent_s']:.0f} s ago")
    if told["missing"]:
        click.echo(f"missing: {told['missing_shards']}")
    if told["abandoned"]:
        click.echo(f"begun by processes that are gone: {told['abandoned']}")
    if told["per_second"] is not None:
        click.echo(f"rate: {told['per_second']:.2f} samples/s, last shard {told['last_shard_s_ago']:.0f} s ago")
    if told["eta_s"]:
        hours, seconds = divmod(told["eta_s"], 3600)
        click.echo(f"time left: {hours} h {seconds // 60:02d} min")
    elif told["eta_s"] is None:
        click.echo("time left: unknown" + ("" if told["running"] else "; nothing is running"))
