"""The command line: a group whose commands are imported when asked for, and one way out for errors.

One file a command, named as the command; each gives `command`. None imports torch at its top.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module

import click

from gansegctl.errors import ExitStatus, GansegError
from gansegctl.version import __version__

COMMANDS = {
    "generate": "Make a dataset of images, or of image/mask pairs, with a generator.",
    "extract": "Write the features of every sample of a dataset into one HDF5 file.",
    "annotate": "Fit a segmenter on annotated exemplars and write masks into a dataset.",
    "distill": "Train a student on a dataset of pairs: a segmenter that needs no generator.",
    "eval": "Score a dataset, segmenter or student against true masks.",
    "predict": "Segment images with a student.",
    "project": "Find the latents of real images by inversion, and their masks.",
    "run": "Run all stages of a preset; resumable.",
    "inspect": "Describe a checkpoint, segmenter, student or dataset.",
    "convert": "Convert another project's checkpoint to safetensors, or a student to ONNX.",
    "export": "Write a dataset in the layout of another tool.",
    "status": "Show the progress of a dataset, over all tasks.",
    "sbatch": "Print a Slurm script for all stages of a preset.",
    "verify": "Check that a dataset is complete and undamaged; repair it.",
    "train": "Train a small StyleGAN2 on images of a domain.",
    "compare": "Compare several methods on one generator, in one table.",
    "demo": "Try everything on the built-in domain, which has exact masks.",
    "bench": "Measure speed and memory against stated baselines.",
    "doctor": "Show what this machine can run.",
}


class LazyGroup(click.Group):
    """Lists commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return import_module(f"gansegctl.cli.{name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from gansegctl.errors import did_you_mean

            ctx.fail(f"got command {args[0]!r}; {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Turn a trained StyleGAN into a labelled segmentation dataset, from one annotated image or none, and train a
    segmenter on it that runs without the GAN.

    Exit status: 0 done, 1 failed, 2 usage, 3 no usable device or backend, 4 dataset wrong or unfinished,
    130 interrupted, 143 terminated.
    """
    ctx.obj = {"debug": debug}


class Terminated(BaseException):
    """SIGTERM: unwinds the stack, so that what is half-written is dropped."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command; the process ends with the status of `errors.ExitStatus`."""
    signal.signal(signal.SIGTERM, _terminate)
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    try:
        status = cli.main(args=arguments, prog_name="gansegctl", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else ExitStatus.DONE)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except click.Abort:
        _fail("interrupted; run the same command again to resume", ExitStatus.INTERRUPTED)
    except click.ClickException as e:
        e.show()
        sys.exit(ExitStatus.USAGE)
    except GansegError as e:
        if debug:
            raise
        _fail(f"Error: {e}", e.status)
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to resume", ExitStatus.INTERRUPTED)
    except Terminated:
        _fail("terminated; run the same command again to resume", ExitStatus.TERMINATED)
    except Exception as e:
        if debug:
            raise
        _fail(
            f"Error: {type(e).__name__}: {e}\n  remedy: run `gansegctl --debug …` to see where, and report it",
            ExitStatus.FAILED,
        )


def _terminate(signum: int, frame: object) -> None:
    raise Terminated


def _fail(message: str, status: int) -> None:
    click.echo(message, err=True)
    sys.exit(int(status))
