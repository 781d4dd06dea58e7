"""Makes docs/performance.md's table and plots of a file of results: ``python -m bench.report``.

The text between the page's two marks is replaced, and the plots beside it are drawn anew. With
``--check`` nothing is written, and the exit status tells whether the page is of these results.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.outcomes import OURS
from bench.results import RESULTS, load
from bench.rows import ROWS

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
PLOTS = "performance"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_NAMES = {"tribes": "Tomcat", "redis": "Redis", "memcached": "memcached", "floor": "plain sockets"}
_COLOURS = {OURS: "#2b6cb0", "tribes": "#c05621", "redis": "#9b2c2c", "memcached": "#2f855a"}


def page_of(results: Mapping[str, Mapping[str, Any]], text: str) -> str:
    """The page with the table of these results in it.

    Raises:
        ValueError: The marks are not in the text.
    """
    before, found, rest = text.partition(BEGIN)
    _, again, after = rest.partition(END)
    if not (found and again):
        raise ValueError(f"{PAGE} lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{_section(results)}{END}{after}"


def _section(results: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [results[name] for name in ROWS if name in results]
    parts = [
        _machine(rows),
        _summary(rows),
        "![Ours over Tomcat's, row by row](performance/ratios.svg)\n",
        *(_details(row) for row in rows),
    ]
    return "\n".join(parts)


def _machine(rows: Iterable[Mapping[str, Any]]) -> str:
    """Where and when, and what else ran."""
    machines = [row["machine"] for row in rows]
    if not machines:
        return "No results yet.\n"
    one = machines[0]
    loads = [each[when] for each in machines for when in ("load", "load_after")]
    versions = ", ".join(f"{name} {number}" for name, number in one["libraries"].items())
    whens = sorted(each["when"] for each in machines)
    revisions = ", ".join(sorted({each["revision"] for each in machines}))
    return (
        f"{whens[0]} to {whens[-1]}, revision {revisions}; {one['processor']}, "
        f"{one['cores']} cores, {one['memory_gib']} GiB, Linux {one['kernel']}; "
        f"CPython {one['python']}, {versions}; "
        f"{one['java']}; Tomcat {one['tomcat']}; {one['redis']}; {one['memcached']}. "
        f"Load average {min(loads):.1f} to {max(loads):.1f}"
        + (": **the machine was not quiet**.\n" if max(loads) > one["cores"] + 1 else ".\n")
    )


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| row | ours | Tomcat | ours / Tomcat | Redis | memcached | goal | reached |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        case = row["cases"][0]
        peers = [_figure(case["contenders"].get(peer)) for peer in ("tribes", "redis", "memcached")]
        ratio = case["ratio_to"].get("tribes")
        met = {True: "yes", False: "**no**", None: "–"}[row["goal_met"]]
        if row["goal"].startswith("reported"):
            met = "–"
        lines.append(
            f"| {row['row']}, {row['unit']} | {_figure(case['contenders'][OURS])} | {peers[0]} | "
            f"{'–' if ratio is None else _short(ratio)} | {peers[1]} | {peers[2]} | "
            f"{row['goal']} | {met} |"
        )
    if missing := sorted(set(ROWS) - {row["row"] for row in rows}):
        lines.append(f"\nNot measured in these results: {', '.join(missing)}.")
    return "\n".join(lines) + "\n"


def _figure(contender: Mapping[str, Any] | None) -> str:
    if contender is None or "absent" in contender:
        return "–"
    return _short(contender["median"])


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _details(row: Mapping[str, Any]) -> str:
    """Everything that was measured in a row."""
    lines = [f"### {row['row']}\n", f"{row['title'][0].upper()}{row['title'][1:]}.\n"]
    if any(len(case["contenders"]) > 1 for case in row["cases"]):
        lines.append(
            f"![Each contender's figure, run by run: {row['row']}](performance/{row['row']}.svg)\n"
        )
    lines += [
        "| case | who | median | lowest to highest | ours / it | CPU s per 100 k | more |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in row["cases"]:
        name = case["case"] if case["unit"] == row["unit"] else f"{case['case']}, {case['unit']}"
        for who, each in case["contenders"].items():
            ratio = case["ratio_to"].get(who)
            cells = [name, who, *_cells(each)]
            cells.insert(4, "" if ratio is None else _short(ratio))
            lines.append(f"| {' | '.join(cells)} |")
    if row["notes"]:
        lines.append("\n" + "\n".join(f"- {note}" for note in row["notes"]))
    return "\n".join(lines) + "\n"


def _cells(contender: Mapping[str, Any]) -> list[str]:
    if "absent" in contender:
        return ["–", contender["absent"], "", ""]
    known = ("median", "lowest", "highest", "cpu_s_per_100k")
    rest = ", ".join(
        f"{key} {_short(value)}" for key, value in contender.items() if key not in known
    )
    cost = contender.get("cpu_s_per_100k")
    return [
        _short(contender["median"]),
        f"{_short(contender['lowest'])} to {_short(contender['highest'])}",
        "" if cost is None else _short(cost),
        rest,
    ]


# ---- plots -------------------------------------------------------------------------------------


def draw(results: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """One plot for each row with peers, and one of all ratios to Tomcat."""
    import matplotlib as mpl

    mpl.use("svg")
    # Equal results make equal files.
    mpl.rcParams.update({"svg.hashsalt": "tribes", "font.size": 9, "svg.fonttype": "none"})
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    rows = [results[name] for name in ROWS if name in results]
    for row in rows:
        if any(len(case["contenders"]) > 1 for case in row["cases"]):
            _draw_row(row, folder / f"{row['row']}.svg")
    _draw_ratios(rows, folder / "ratios.svg")


def _draw_row(row: Mapping[str, Any], path: Path) -> None:
    from matplotlib import pyplot as plt

    cases = [case for case in row["cases"] if case["unit"] == row["unit"]][:10]
    names = list(dict.fromkeys(who for case in cases for who in case["contenders"]))
    figure, axes = plt.subplots(figsize=(8, 1 + 0.18 * len(cases) * max(2, len(names))))
    height = 0.8 / len(names)
    for number, who in enumerate(names):
        places, values, errors = [], [], []
        for at, case in enumerate(cases):
            each = case["contenders"].get(who, {"absent": ""})
            if "absent" not in each and each["median"] > 0:
                places.append(at + number * height)
                values.append(each["median"])
                low, high = each["median"] - each["lowest"], each["highest"] - each["median"]
                errors.append((max(0, low), max(0, high)))
        if values:
            spread = list(zip(*errors, strict=True))
            colour = _COLOURS.get(who)
            label = _NAMES.get(who, who)
            axes.barh(places, values, height, xerr=spread, label=label, color=colour)
    middle = 0.4 - height / 2
    axes.set_yticks([at + middle for at in range(len(cases))], [case["case"] for case in cases])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"{row['unit']} (logarithmic; bars: medians, lines: lowest to highest)")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    _save(figure, path)


def _draw_ratios(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    from matplotlib import pyplot as plt

    found = []
    for row in rows:
        ratio = row["cases"][0]["ratio_to"].get("tribes")
        if ratio:
            is_rate = row["unit"].endswith("/s")
            found.append((row["row"], ratio if is_rate else 1 / ratio))
    if not found:
        return
    figure, axes = plt.subplots(figsize=(8, 1 + 0.3 * len(found)))
    colours = [_COLOURS[OURS] if ratio >= 1 else _COLOURS["tribes"] for _, ratio in found]
    axes.barh([name for name, _ in found], [ratio for _, ratio in found], color=colours)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("times better than Tomcat (left of the line: worse), logarithmic")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    results = load(arguments.results)
    text = PAGE.read_text()
    page = page_of(results, text)
    if arguments.check:
        return int(page != text)
    PAGE.write_text(page)
    draw(results, PAGE.parent / PLOTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
