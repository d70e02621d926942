"""The benchmark's plots, one panel a target, as SVG files.

What is drawn is computed in `figures.py` and `metrics.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from MedShieldLib.evaluation.figures import deciding, mean, silent_rate  # noqa: E402
from MedShieldLib.evaluation.metrics import roc  # noqa: E402
from MedShieldLib.evaluation.plan import Kind  # noqa: E402
from MedShieldLib.evaluation.rows import Row, grouped  # noqa: E402

# The shield stands out; the baselines share muted colours, told apart by line style as well.
_STRONG = {
    "shield": "#b3261e",
    "shield-4": "#d1486a",
    "shield-quick": "#e8710a",
    "shield-learned": "#00796b",
    "shield-second": "#6a1b9a",
}
_MUTED = ("#1b4d89", "#3d8f6f", "#7a5195", "#8c8c8c", "#4aa3c7", "#a68a3a")
_STYLES = ("-", "--", ":")


def draw_all(rows: Sequence[Row], folder: Path) -> dict[str, str]:
    """Draw every plot that the rows have something for; titles and file names."""
    plots = {
        "ROC": ("roc.svg", _roc),
        "Defended Dice against eps, all attacks, ineffective ones too": ("dice.svg", _dice),
        "Silent failures against the attacker's budget": ("failures.svg", _failures),
        "Attackers who know the shield, against its extra inferences": ("inferences.svg", _inferences),
        "False alarms per shift": ("false_alarms.svg", _false_alarms),
    }
    drawn = {}
    for title, (name, draw) in plots.items():
        figure = draw(rows)
        if figure is not None:
            figure.savefig(folder / name, bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)
            drawn[title] = name
    return drawn


def _roc(rows: Sequence[Row]) -> Figure | None:
    """Effective attacks against clean and benignly shifted volumes."""

    def draw(axes: Axes, mine: Sequence[Row]) -> None:
        for defence, group in grouped(mine, lambda r: r.defence).items():
            attacked = [r.score for r in group if r.kind is Kind.ATTACK and r.effective]
            benign = [r.score for r in group if r.kind in (Kind.CLEAN, Kind.SHIFT)]
            if attacked and benign and not any(map(math.isnan, attacked)):
                axes.step(*roc(attacked, benign), where="post", label=defence, **_look(defence, rows))
        axes.set(xlabel="false alarms", ylabel="attacks detected", xlim=(-0.02, 1), ylim=(0, 1.02))

    return _per_target(rows, draw)


def _dice(rows: Sequence[Row]) -> Figure | None:
    """Mean over attacks and heads, always on; the target alone for comparison."""

    def draw(axes: Axes, mine: Sequence[Row]) -> None:
        attacked = [r for r in mine if r.kind is Kind.ATTACK]
        for defence, group in grouped(attacked, lambda r: r.defence).items():
            by_eps = sorted(grouped(group, lambda r: r.eps).items())
            values = [mean([_defended(r) for r in at]) for _, at in by_eps]
            if not any(map(math.isnan, values)):
                x = [eps for eps, _ in by_eps]
                axes.plot(x, values, marker="o", markersize=3, label=defence, **_look(defence, rows))
        axes.set(xlabel="eps (255ths of the window)", ylabel="Dice against the clean answer", ylim=(0, 1.02))

    return _per_target(rows, draw)


def _failures(rows: Sequence[Row]) -> Figure | None:
    """Of the shield that decides: share of silent failures against the passes that the attacker spent."""
    shield = deciding(rows)

    def draw(axes: Axes, mine: Sequence[Row]) -> None:
        attacked = [r for r in mine if r.kind.attacked and r.defence == shield]
        bounds = sorted({r.eps for r in attacked})
        for eps, color in zip(bounds, _MUTED, strict=False):
            points = []
            for name, group in grouped((r for r in attacked if r.eps == eps), lambda r: r.name).items():
                passes = mean([r.fact("passes") for r in group])
                if not math.isnan(passes):  # of an attack made elsewhere nobody knows
                    points.append((passes, silent_rate(group, eps).value, name))
            axes.scatter(
                [p for p, _, _ in points], [s for _, s, _ in points], label=f"{eps:g}/255", color=color
            )
            for passes, share, name in points:
                if share > 0:
                    axes.annotate(
                        name, (passes, share), fontsize=6, xytext=(3, 3), textcoords="offset points"
                    )
        axes.set(xlabel="passes through the target", ylabel="silent failures", ylim=(-0.02, 1.02))
        axes.set_xscale("symlog")

    return _per_target(rows, draw)


def _inferences(rows: Sequence[Row]) -> Figure | None:
    """Silent failures and what the user is given, for shields of several sizes; all attacks together."""
    adaptive = [r for r in rows if r.kind is Kind.ADAPTIVE]
    if len({r.extra_inferences for r in adaptive}) < 2:
        return None

    def draw(axes: Axes, mine: Sequence[Row]) -> None:
        for (eps, group), color in zip(sorted(grouped(mine, lambda r: r.eps).items()), _MUTED, strict=False):
            sizes = sorted(grouped(group, lambda r: r.extra_inferences).items())
            x = [size for size, _ in sizes]
            given = [mean([r.dice_given for r in at]) for _, at in sizes]
            silent = [silent_rate(at, eps).value for _, at in sizes]
            axes.plot(x, silent, "o-", color=color, label=f"silent failures, {eps:g}/255")
            axes.plot(x, given, "s:", color=color, label=f"given Dice, {eps:g}/255")
            axes.set_xticks(x)
        axes.set(xlabel="extra inferences of a check", ylim=(-0.02, 1.02))

    return _per_target(adaptive, draw)


def _false_alarms(rows: Sequence[Row]) -> Figure | None:
    """Of the shield that decides, by shift."""
    shield = deciding(rows)

    def draw(axes: Axes, mine: Sequence[Row]) -> None:
        benign = [r for r in mine if r.kind in (Kind.CLEAN, Kind.SHIFT)]
        groups = grouped(benign, lambda r: r.name or "none")
        attack = [mean([r.alarm for r in g]) for g in groups.values()]
        novel = [mean([r.unusual for r in g]) for g in groups.values()]
        axes.barh(list(groups), attack, color=_STRONG[shield], label="called an attack")
        axes.barh(list(groups), novel, left=attack, color="#d9d9d9", label="out of distribution")
        axes.axvline(0.05, color="black", linewidth=0.8, linestyle=":")
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=7)
        axes.set(xlabel="share of volumes", xlim=(0, 1))

    return _per_target([r for r in rows if r.defence == shield], draw)


def _per_target(rows: Sequence[Row], draw) -> Figure | None:
    targets = grouped(rows, lambda r: r.target)
    if not targets:
        return None
    figure, panels = plt.subplots(
        1, len(targets), figsize=(4.2 * len(targets), 3.8), squeeze=False, layout="constrained"
    )
    for axes, (target, mine) in zip(panels[0], targets.items(), strict=True):
        draw(axes, mine)
        axes.set_title(target, fontsize=10)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0][0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), fontsize=7)
    return figure


def _look(defence: str, rows: Sequence[Row]) -> dict:
    """Colour, width and style of a defence, the same in every panel."""
    if defence in _STRONG:
        return {"color": _STRONG[defence], "linewidth": 2.2}
    others = [d for d in grouped(rows, lambda r: r.defence) if d not in _STRONG]
    n = others.index(defence)
    style = _STYLES[n // len(_MUTED) % len(_STYLES)]
    return {"color": _MUTED[n % len(_MUTED)], "linewidth": 1.2, "linestyle": style}


def _defended(row: Row) -> float:
    return row.dice_original if row.defence == "none" else row.dice_defended
