"""What commands cost: time, processor time and memory as the kernel counts them, requests and
bytes as the lines count them, programs and system calls as strace counts them."""

import os
import statistics
import subprocess
import sys
import tempfile
import time


class Failed(Exception):
    pass


def call(command, cwd=None, env=None, **options):
    """A command that prepares something; its output, or the reason that it failed."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=env, text=True, stdin=subprocess.DEVNULL,
                          capture_output=True, **options)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def cpu_of(process):
    """CPU seconds that a running process has had."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(commands, cwd=None, env=None, lines=(), servers=()):
    """Runs commands one after the other as one piece of work, and gives what they cost together.

    `lines` are the proxies that they go through, `servers` the processes behind. What those need
    is counted apart: on a machine of their own they would take nothing from the commands."""
    for line in lines:
        line.reset()
    # The proxies are threads of this process.
    serving = [os.getpid(), *servers] if lines else []
    before = sum(map(cpu_of, serving))
    cost = {"wall": 0.0, "cpu": 0.0, "peak": 0.0, "steps": []}
    for command in commands:
        with tempfile.TemporaryFile("w+") as said:
            start = time.monotonic()
            child = subprocess.Popen([str(word) for word in command], cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                                     stdout=said, stderr=said)
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.monotonic() - start
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                said.seek(0)
                raise Failed(f"{' '.join(map(str, command))}\n{said.read()[-4000:]}")
        cost["wall"] += wall
        cost["cpu"] += usage.ru_utime + usage.ru_stime
        cost["peak"] = max(cost["peak"], usage.ru_maxrss / 1024)
        cost["steps"].append(round(wall, 3))
    if lines:
        for name in ("requests", "up", "down"):
            cost[name] = sum(getattr(line, name) for line in lines)
        cost["apart"] = [line.requests for line in lines]
        cost["serving"] = sum(map(cpu_of, serving)) - before
    return cost


def traced(commands, cwd=None, env=None):
    """How many programs commands start, themselves included, and how many system calls they make."""
    counted = {"programs": 0, "calls": 0}
    for command in commands:
        with tempfile.NamedTemporaryFile("r") as report:
            call(["strace", "-f", "-c", "-o", report.name, *command], cwd, env)
            for line in report.read().splitlines():
                words = line.split()
                if words and words[-1] == "execve":
                    failed = int(words[4]) if len(words) == 6 else 0
                    counted["programs"] += int(words[3]) - failed
                elif words and words[-1] == "total":
                    counted["calls"] += int(words[3])
    return counted


def median(costs, name):
    return statistics.median(cost[name] for cost in costs)


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
