"""`gansegctl status`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("dataset", type=options.PATH)
@options.json_flag
def command(dataset: Path, as_json: bool) -> None:
    """Show the progress of DATASET over all tasks and machines: shards done, running and missing, rate, time left.

    The rate is that of the last 64 shards. A shard counts as running while its process gives signs of life.
    """
    from gansegctl.pipeline.status import status_of

    found = status_of(dataset)
    if as_json:
        console.emit(found, True)
        return
    click.echo(f"{found['dataset']}: {found['samples']:,} of {found['planned']:,} samples ({found['stage']})")
    click.echo(f"shards: {found['done']} done, {len(found['running'])} running, {found['missing']} missing")
    for row in found["running"]:
        where = f"{row['host']}, process {row['process']}, task {row['task']}"
        click.echo(f"  shard {row['shard']}: {where}, sign of life {row['silent_s']:.0f} s ago")
    if found["missing"]:
        click.echo(f"missing: {found['missing_shards']}")
    if found["abandoned"]:
        click.echo(f"begun by processes that are gone: {found['abandoned']}")
    if found["per_second"] is not None:
        click.echo(f"rate: {found['per_second']:.2f} samples/s, last shard {found['last_shard_s_ago']:.0f} s ago")
    if found["eta_s"]:
        hours, seconds = divmod(found["eta_s"], 3600)
        click.echo(f"time left: {hours} h {seconds // 60:02d} min")
    elif found["eta_s"] is None:
        click.echo("time left: unknown" + ("" if found["running"] else "; nothing is running"))
