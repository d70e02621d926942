"""The command line `medshield`: options in, jobs run, outcome in plain words, exit codes.

What the commands do is in `jobs.py`; what they print is in `terminal.py`.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

from MedShieldLib import __version__, heap
from MedShieldLib.attacks import ATTACKS, PREPARED
from MedShieldLib.control import Control, ExitCode
from MedShieldLib.effort import QUICK
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.extras import how_to_install
from MedShieldLib.jobs import AttackJob, CalibrateJob, CheckJob, HardenJob, TrainJob
from MedShieldLib.targets.description import describe_foreign_code

try:
    import typer

    from MedShieldLib import terminal
except ModuleNotFoundError as error:
    print(how_to_install(error), file=sys.stderr)
    sys.exit(ExitCode.INPUT_ERROR)

Answer = TypeVar("Answer")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 clean or done, 10 out of distribution, 20 suspected attack, 2 input error, "
    "3 cancelled, 1 fault. Add --debug to any command to see the traceback of a fault. Not for clinical use.",
)

# Without `readable=False` an unreadable file gets Typer's box of usage instead of our own sentence.
_path_argument = partial(typer.Argument, readable=False)
_path_option = partial(typer.Option, readable=False)

# What a volume and a target are enough for.
_ATTACKS = [name for name in ATTACKS if name not in PREPARED]

VolumePath = Annotated[Path, _path_argument(metavar="VOLUME", help="NIfTI, NRRD, MHA file or DICOM folder.")]
TargetName = Annotated[str, typer.Option("--target", "-t", help="brain-tissue, deepbet, or a JSON file.")]
Series = Annotated[str | None, typer.Option(help="Which series of a DICOM folder.")]
Component = Annotated[int | None, typer.Option(min=0, help="Which component of a 4D or vector image.")]
SecondOpinion = Annotated[str | None, typer.Option(help="Another target to ask as well.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
Trust = Annotated[bool, typer.Option("--trust", help="Run the code in a TorchScript model without asking.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]


def main() -> NoReturn:
    """The entry point: every outcome becomes an exit code, every failure one sentence."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    heap.keep_for_reuse()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a name must not undo a check
    code: int = ExitCode.FAULT
    try:
        app(arguments)
    except SystemExit as leave:
        code = ExitCode.CANCELLED if leave.code == 130 else int(leave.code or 0)
    except InputError as error:
        _say(str(error))
        code = ExitCode.INPUT_ERROR
    except ModuleNotFoundError as error:
        _say(how_to_install(error))
        code = ExitCode.INPUT_ERROR
    except (Cancelled, KeyboardInterrupt):
        _say("Cancelled; nothing is left half-written.")
        code = ExitCode.CANCELLED
    except Exception as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        _say(f"MedShield failed: {type(error).__name__}: {error} (add --debug to see where).")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a cancelled job may still be inside a native call


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Keeps medical image segmentation honest when somebody tampers with the scan."""
    if version:
        terminal.out.print(f"medshield {__version__}")
        raise typer.Exit


@app.command()
def check(
    volume: VolumePath,
    target: TargetName,
    out: Annotated[Path, _path_option("--out", "-o", help="Folder for the results.")],
    calibration: Annotated[Path | None, _path_option(help="File of 'calibrate'; default: shipped.")] = None,
    alpha: Annotated[float, typer.Option(help="Share of clean scans that may raise a false alarm.")] = 0.05,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the random versions; default: fresh.")] = None,
    series: Series = None,
    component: Component = None,
    versions: Annotated[
        int | None, typer.Option(min=QUICK, help="Of the volume; default: all that the calibration has.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"As --versions {QUICK}: faster, and easier to fool.")
    ] = False,
    second_opinion: SecondOpinion = None,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Check VOLUME for tampering, segment it, and write the results to a folder."""
    for name in filter(None, (target, second_opinion)):
        _agree_to_foreign_code(name, trust)
    if quick and versions is not None:
        raise InputError("--quick and --versions contradict each other; give one of them.")
    count = QUICK if quick else versions
    job = CheckJob(
        volume, target, out, calibration, alpha, seed, series, component, force, count, second_opinion
    )
    result = _run(job.run)
    terminal.show_check(result, out)
    raise typer.Exit(result.verdict.exit_code)


@app.command()
def attack(
    volume: VolumePath,
    target: TargetName,
    out: Annotated[Path, _path_option("--out", "-o", help="File for the attacked volume.")],
    eps: Annotated[str, typer.Option(help="Bound, as a share of the target's intensity window.")] = "8/255",
    attack: Annotated[str, typer.Option(help=f"One of {', '.join(_ATTACKS)}.")] = "pgd",
    steps: Annotated[int | None, typer.Option(min=1, help="Default: the attack's own.")] = None,
    seed: Seed = 0,
    series: Series = None,
    component: Component = None,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Change VOLUME so that the target draws something else (to test a target and the shield)."""
    _agree_to_foreign_code(target, trust)
    job = AttackJob(volume, target, parse_eps(eps), out, attack, steps, seed, series, component, force)
    terminal.show_attack(_run(job.run), out)


@app.command()
def calibrate(
    folder: Annotated[Path, _path_argument(help="Clean volumes; its sub-folders are DICOM series.")],
    target: TargetName,
    out: Annotated[Path, _path_option("--out", "-o", help="File for the calibration.")],
    second_opinion: SecondOpinion = None,
    learned: Annotated[bool, typer.Option("--learned", help="Let the denoiser vote as well.")] = False,
    seed: Seed = 0,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Learn how a target behaves on clean volumes like yours."""
    for name in filter(None, (target, second_opinion)):
        _agree_to_foreign_code(name, trust)
    job = CalibrateJob(folder, target, out, seed, force, second_opinion, learned)
    terminal.show_calibration(_run(job.run), out)


@app.command()
def harden(
    folder: Annotated[Path, _path_argument(help="Clean volumes; calibrate with others.")],
    target: TargetName,
    out: Annotated[Path, _path_option("--out", "-o", help="JSON file for the copy; its weights go beside.")],
    work: Annotated[Path, _path_option("--work", "-w", help="For checkpoints; a rerun picks up there.")],
    begin: Annotated[str | None, typer.Option(help="A copy to train on, with another --seed.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Default: 1600.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: 13.")] = None,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Train a copy of a target that is harder to mislead, to ask for second opinions (an hour or more)."""
    for name in filter(None, (target, begin)):
        _agree_to_foreign_code(name, trust)
    weights = _run(HardenJob(folder, target, out, work, iterations, seed, force, begin).run)
    terminal.out.print(f"Copy: {out}, with its weights in {weights.name}", markup=False, soft_wrap=True)


@app.command()
def train_target(
    data: Annotated[Path, _path_argument(help="With volumes/*_T1.nii.gz, labels/*_DLMUSE.nii.gz.")],
    work: Annotated[Path, _path_option("--work", "-w", help="For checkpoints; a rerun picks up there.")],
    out: Annotated[Path, _path_option("--out", "-o", help="File for the weights (.safetensors).")],
    folds: Annotated[int, typer.Option(min=0, help="Leave-subjects-out validation; 0 for none.")] = 3,
    iterations: Annotated[int | None, typer.Option(min=1, help="Default: as the shipped weights.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: as the shipped weights.")] = None,
    force: Force = False,
) -> None:
    """Train the reference target 'brain-tissue' (hours on a CPU)."""
    _run(TrainJob(data, work, out, folds, iterations, seed, force).run)
    terminal.out.print(f"Weights: {out}", markup=False, soft_wrap=True)


@app.command()
def info(volume: VolumePath, series: Series = None, component: Component = None) -> None:
    """Say what VOLUME holds, and whether it can be checked."""
    from MedShieldLib.volume import Volume

    terminal.show_volume(Volume.read(volume, series=series, component=component))


@app.command()
def targets() -> None:
    """List the models that can be protected here."""
    from MedShieldLib.targets import BUILT_IN, load_target

    for name in BUILT_IN:
        try:
            terminal.show_target(load_target(name))
        except InputError as error:
            terminal.out.print(f"{name}: {error}", markup=False, soft_wrap=True)
    terminal.out.print(
        "Any TorchScript model: --target takes the JSON file that describes it; see README.md."
    )


@app.command()
def benchmark(
    data: Annotated[Path | None, _path_option(help="With volumes/, heads.csv; else MNI152 alone.")] = None,
    out: Annotated[Path, _path_option("--out", "-o", help="Folder for the tables.")] = Path("benchmark"),
    work: Annotated[Path, _path_option("--work", "-w", help="A rerun goes on.")] = Path("work/benchmark"),
    targets: Annotated[str | None, typer.Option(help="Names or a model's JSON; default: all.")] = None,
    attacks: Annotated[str | None, typer.Option(help='Such as "fgsm pgd:steps=100".')] = None,
    eps: Annotated[str | None, typer.Option(help="Bounds in 255ths of the window; default: 2 4 8.")] = None,
    defences: Annotated[str | None, typer.Option(help="The shield and its baselines.")] = None,
    shifts: Annotated[str | None, typer.Option(help="Benign ones, for false alarms.")] = None,
    heads: Annotated[str | None, typer.Option(help="Subjects to test on.")] = None,
    second_opinion: Annotated[
        str | None, typer.Option(help="Whom 'shield-second' asks; default: brain-tissue-robust.")
    ] = None,
    seed: Seed = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Minutes: shows that all works.")] = False,
    trust: Trust = False,
) -> None:
    """Measure targets, attacks and defences against each other (days; stop and go on as you like)."""
    from MedShieldLib.evaluation.job import BenchmarkJob
    from MedShieldLib.evaluation.plan import Plan

    plan = Plan.quick(work, seed) if quick else Plan(data, work, seed=seed)
    plan = plan.with_choices(
        targets=targets, attacks=attacks, eps=eps, defences=defences, shifts=shifts, heads=heads
    )
    if second_opinion is not None:
        plan = replace(plan, second_opinion=second_opinion)
    for name in (*plan.targets, plan.second_opinion):
        _agree_to_foreign_code(name, trust)
    report = _run(BenchmarkJob(plan, out, shlex.join(["medshield", *sys.argv[1:]])).run)
    terminal.out.print(f"Tables: {report}", markup=False, soft_wrap=True)


@app.command()
def demo(
    out: Annotated[Path, _path_option("--out", "-o", help="Folder for the results.")] = Path("demo"),
) -> None:
    """Attack the MNI152 brain, check it before and after, and compare."""
    from MedShieldLib.demo import run

    terminal.show_demo(_run(lambda control: run(out, control)))


def parse_eps(text: str) -> float:
    """A bound such as "8/255" or "0.03", above 0 and at most 1.

    Raises:
        InputError: if it is anything else.
    """
    numerator, slash, denominator = text.partition("/")
    try:
        eps = float(numerator) / (float(denominator) if slash else 1)
    except (ValueError, ZeroDivisionError):
        eps = 0.0
    if not 0 < eps <= 1:
        raise InputError(
            f"'{text}' is no bound for an attack; give one above 0 and at most 1, such as 8/255."
        )
    return eps


def _run(job: Callable[[Control], Answer]) -> Answer:
    with terminal.progress_line() as progress:
        control = Control(progress)
        return control.run(lambda: job(control))


def _agree_to_foreign_code(target: str, trust: bool) -> None:
    """A TorchScript file is a program: ask before it runs."""
    warning = describe_foreign_code(target)
    if warning is None or trust:
        return
    if not sys.stdin.isatty():
        raise InputError(f"{warning[:-1]}, and then add --trust.")
    _say(warning)
    if not typer.confirm("Go on?", err=True):
        raise Cancelled


def _say(sentence: str) -> None:
    terminal.err.print(sentence, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
