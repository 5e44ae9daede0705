"""Tables and plots of docs/benchmarks.md from docs/benchmarks/results.json. What stands between
the markers is written here; everything else on the page is people's."""

import re
from statistics import median

from . import plot
from .peers import HERE

PAGE, PLOTS = HERE / "docs/benchmarks.md", HERE / "docs/benchmarks"
SCENARIOS = {
    "first": "first deploy", "unchanged": "unchanged deploy", "line": "one line changed",
    "dependency": "one dependency added", "rollback": "rollback", "empty": "empty machine, warm cache",
}
BIGFLOW = "BigFlow 1.11.3, image by buildah"


def render(results):
    text = PAGE.read_text()
    blocks = {"summary": summary(results, text)}
    for name in ("deploys", "scaffold", "nearby", "thousand", "layer", "dependencies"):
        if name in results:
            blocks[name] = globals()[name](results[name])
    for name, block in blocks.items():
        start, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if start not in text:
            raise SystemExit(f"{PAGE} has no {start}")
        before, rest = text.split(start)
        text = f"{before}{start}\n{block}\n{end}{rest.split(end)[1]}"
    PAGE.write_text(text)


def table(header, rows):
    return "\n".join([f"| {' | '.join(header)} |", "| --- |" + " ---: |" * (len(header) - 1),
                      *(f"| {' | '.join(row)} |" for row in rows)])


def draw(name, title, groups, unit, alt):
    PLOTS.mkdir(exist_ok=True)
    (PLOTS / f"{name}.svg").write_text(plot.bars(title, groups, unit))
    return f"![{alt}](benchmarks/{name}.svg)"


def values(costs, name):
    return [cost[name] for cost in costs]


def middle(costs, name, digits=2):
    """The median, and from where to where it went."""
    seen = values(costs, name)
    text = f"{median(seen):,.{digits}f}"
    if len(seen) > 1:
        text += f" ({min(seen):,.{digits}f}–{max(seen):,.{digits}f})"
    return text


def size(count):
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count:,.0f} B"


def cells(costs):
    apart = [median(values([dict(zip("rb", cost["apart"])) for cost in costs], key)) for key in "rb"]
    return [middle(costs, "wall"), middle(costs, "cpu"), serving(costs), f"{max(values(costs, 'peak')):,.0f}",
            f"{apart[0]:,.0f} + {apart[1]:,.0f}", size(median(values(costs, "up"))), size(median(values(costs, "down")))]


def serving(costs):
    """Of what was measured before this was counted it is not known."""
    return middle(costs, "serving") if all("serving" in cost for cost in costs) else ""


HEADER = ["wall s", "CPU s", "servers' CPU s", "MiB", "requests", "up", "down"]


def deploys(section, name="deploys"):
    parts = []
    plots = []
    for scenario, title in SCENARIOS.items():
        by = section["costs"].get(scenario, {})
        if not by:
            continue
        rows = [[who, *cells(costs), *counts(section, scenario, who)] for who, costs in by.items()]
        parts.append(f"**{title[0].upper()}{title[1:]}**\n\n" + table(["", *HEADER, "programs", "system calls"], rows))
        bars = [(who.replace(" 1.11.3, image by", " with"), min(values(costs, "wall")), median(values(costs, "wall")), max(values(costs, "wall")),
                 who == "Forebay") for who, costs in by.items()]
        plots.append((title, bars))
    alt = f"Seconds of each kind of deploy of {section['workflows']} workflows, Forebay beside BigFlow"
    line = f"{section['seconds'] * 1000:.0f} ms a request" if section["seconds"] else "servers on the same machine"
    picture = draw(name, f"Project of {section['workflows']} workflows, {line}: seconds, median and spread", plots, "s", alt)
    return "\n\n".join([picture, *parts])


def counts(section, scenario, who):
    counted = section.get("counts", {}).get(scenario, {}).get(who)
    return [f"{counted['programs']:,}", f"{counted['calls']:,}"] if counted else ["", ""]


def scaffold(section):
    return deploys(section, "scaffold")


def nearby(section):
    return deploys(section, "nearby")


def thousand(section):
    titles = {"first": f"all {section['files']:,} are new", "ten": f"{section['changed']} have changed", "unchanged": "nothing has changed"}
    rows, plots = [], []
    for scenario, title in titles.items():
        by = section["costs"][scenario]
        for who, costs in by.items():
            rows.append([f"{title}: {who}", *cells(costs)])
        plots.append((title, [(who, min(values(costs, "wall")), median(values(costs, "wall")), max(values(costs, "wall")),
                               who == "Forebay") for who, costs in by.items()]))
    picture = draw("thousand", f"{section['files']:,} DAG files to a bucket, 50 ms a request: seconds", plots, "s",
                   "Seconds for a folder of a thousand DAG files")
    return f"{picture}\n\n{table(['', *HEADER], rows)}"


def layer(section):
    names = {"forebay": "Forebay"}
    rows = [[names.get(row["what"], row["what"]), f"{row['cpu']:.2f}", f"{row['wall']:.1f}", f"{row['peak']:.0f} MiB"]
            for row in section["rows"]]
    return table(["", "CPU seconds", "seconds", "peak"], rows)


def dependencies(section):
    wheels = section["wheels"]
    cell = lambda value, digits: "" if value is None else f"{value:,.{digits}f}"
    rows = [[row["what"].replace("forebay", "Forebay"), cell((row["own"] or 0) + (row["children"] or 0), 2), cell(row["wall"], 1),
             cell(row["peak"] or None, 0), cell(row["size"], 1)] for row in section["rows"]]
    rows += [[row["what"], f"{row['cpu']:.2f}", f"{row['wall']:.1f}", f"{row['peak']:.0f}", ""] for row in section["install"]]
    bars = [(row["what"].replace("forebay", "Forebay")[:34], cpu, cpu, cpu, row["what"].startswith("forebay"))
            for row in section["rows"] for cpu in [(row["own"] or 0) + (row["children"] or 0)]]
    picture = draw("dependencies", "Layers of BigFlow's dependency set: CPU seconds", [("", bars)], "s",
                   "CPU seconds for the layers of BigFlow's dependencies")
    text = (f"{wheels['count']} distributions, {size(wheels['packed'])} as wheels, {size(wheels['unpacked'])} unpacked.")
    share = section.get("share")
    more = f"\n\nOne small distribution more makes {share[0]:.1f} of {share[1]:.1f} MB new: {100 * share[0] / share[1]:.1f} %." if share else ""
    starts = section.get("starts")
    if starts:
        imports = [[row["what"].replace("forebay", "Forebay"), f"{row['cpu']:.2f}", f"{100 * row['cpu'] / starts[0]['cpu']:.0f} %"] for row in starts]
        header = [f"start of a process: `{starts[0]['imports']}`", "CPU s", "of pip's"]
        more += f"\n\n{table(header, imports)}"
    return f"{text}\n\n{picture}\n\n{table(['all layers', 'CPU s', 'wall s', 'peak MiB', 'MB'], rows)}{more}"


# Tables of the store, and the row beside which Forebay's stands.
STORE = {
    "Scan of 100,000 files without a change": "git status",
    "First hash of 100,000 files of 3,400 bytes, in the page cache": "b3sum of all files",
    "100,000 files of 300 bytes, read and put durably": "restic backup",
    "Open a store and look one object up, as a process": "a hundred objects",
}


def store(text):
    """Rows of the summary from the tables that benches/store-figures has written: wall and CPU seconds."""
    for title, goal, lines in re.findall(r"\*\*(.+?)\*\*\n\nGoal: (.+?)\n\n\|.*\n\|.*\n((?:\|.*\n)+)", text):
        if title in STORE:
            cells = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in lines.splitlines()]
            show = lambda row: f"{row[1]} s, CPU {row[2]} s"
            peer = next(row for row in cells if row[0] == STORE[title])
            yield [title, goal, show(cells[0]), f"{peer[0]} {show(peer)}"]


def summary(results, page):
    machine, versions = results["machine"], results["versions"]
    rows = []

    def add(what, goal, ours, peer):
        rows.append([what, goal, ours, peer])

    def costs(section, scenario, who="Forebay"):
        return results.get(section, {}).get("costs", {}).get(scenario, {}).get(who)

    sections = (("deploys", "200 workflows, 50 ms a request", ("0.25 s", "1 s", "1.5 s")),
                ("scaffold", "the example, 50 ms a request", ("0.25 s", "1 s", "1.5 s")),
                ("nearby", "the example, servers on the same machine", ("", "0.3 s without Python", "")))
    for section, title, goals in sections:
        for scenario, goal in zip(("unchanged", "line", "rollback"), goals):
            ours, theirs = costs(section, scenario), costs(section, scenario, BIGFLOW)
            if ours and theirs:
                add(f"{SCENARIOS[scenario]}, {title}", goal, f"{median(values(ours, 'wall')):.2f} s",
                    f"BigFlow {median(values(theirs, 'wall')):.1f} s")
    ours, theirs = costs("scaffold", "unchanged"), costs("scaffold", "unchanged", BIGFLOW)
    if ours and theirs:
        add("unchanged deploy, the example, CPU", "20 ms", f"{1000 * median(values(ours, 'cpu')):.0f} ms", f"BigFlow {median(values(theirs, 'cpu')):.1f} s")
    ours, theirs = costs("deploys", "unchanged"), costs("deploys", "unchanged", BIGFLOW)
    if ours and theirs:
        add("unchanged deploy, 200 workflows, CPU", "20 ms", f"{1000 * median(values(ours, 'cpu')):.0f} ms", f"BigFlow {median(values(theirs, 'cpu')):.1f} s")
        add("unchanged deploy, requests", "3", f"{median(values(ours, 'requests')):.0f}", f"BigFlow {median(values(theirs, 'requests')):.0f}")
    ours, theirs = costs("deploys", "line"), costs("deploys", "line", BIGFLOW)
    if ours and theirs:
        registry = lambda found: f"{median(cost['apart'][0] for cost in found):.0f}"
        add("one line changed, requests to the registry", "7", registry(ours), f"buildah {registry(theirs)}")
    ours = costs("deploys", "rollback")
    if ours:
        add("rollback, requests to the registry", "1", f"{median(cost['apart'][0] for cost in ours):.0f}", "BigFlow has none")
    layers = results.get("dependencies")
    if layers:
        cpu = {row["what"]: (row["own"] or 0) + (row["children"] or 0) for row in layers["rows"]}
        mine = next((what for what in cpu if what.startswith("forebay") and ".pyc" not in what), None)
        gzip = cpu.get("tar and gzip -6")
        if mine and gzip:
            add("layers of BigFlow's dependencies, CPU", "2 s", f"{cpu[mine]:.1f} s", f"gzip -6 {gzip:.1f} s")
        starts = {row["what"]: row["cpu"] for row in layers.get("starts", [])}
        if {"installed by pip", "forebay, with .pyc"} <= starts.keys():
            add("start of a process with the dependencies' imports, CPU", "105 % of pip's", f"{starts['forebay, with .pyc']:.2f} s", f"pip {starts['installed by pip']:.2f} s")
        if layers.get("share"):
            new, whole = layers["share"]
            add("one small dependency added, share of the dependencies' bytes that is sent", "5 %", f"{100 * new / whole:.1f} %", "Docker 100 %")
    rows.extend(store(page))
    text = (f"One run on {machine['cores']} cores ({machine['processor']}), {machine['memory']} GiB, Linux {machine['kernel']}, "
            f"at commit {machine['commit']}; the load at its start was {machine['load']}. "
            + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".")
    return f"{text}\n\n{table(['what', 'goal', 'Forebay', 'beside it'], rows)}"
