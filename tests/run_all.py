"""Builds shoal and runs every test suite; the last line is "N passed, N failed[, N skipped]".

Suites are the rooms' gtest programs (build/release/tests, again under AddressSanitizer for the rooms that touch bytes
from outside, and the engine's and what lies below it for AArch64 under qemu-user) and the Python suites
tests/*/test_*.py. See ./test for the arguments.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Rooms whose tests run under the sanitizers too: whatever reads files, frames, requests or indexes weights.
SANITIZED_ROOMS = ["base", "formats", "text", "link", "engine", "model", "runtime", "worker", "scheduler", "planner",
                   "cluster", "serving", "api"]
# What runs as AArch64, by the processor that qemu-user plays: cortex-a72 has no dot products, max has everything.
EMULATED = [("engine", "max"), ("engine", "cortex-a72"), ("base", "max")]
# Of these, what takes minutes there, since threads that spin are emulated too.
NOT_EMULATED = "*Attention.*Threads:*Attention.OverSeveralSpans*"
SUITE_TIMEOUT_SECONDS = 900
FUZZ_SECONDS = 60
SHORT_FUZZ_SECONDS = 10


class Tally:
    """Counts over all suites, and the names of what failed."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def add(self, suite, passed, failures, skipped, seconds):
        self.passed += passed
        self.failed += len(failures)
        self.skipped += skipped
        self.failures += [f"{suite}: {name}" for name in failures]
        note = f", {skipped} skipped" if skipped else ""
        print(f"{'FAIL' if failures else 'ok  '} {suite:<24} {passed} passed, {len(failures)} failed{note} ({seconds:.1f} s)",
              flush=True)


def build(preset, targets):
    started = time.monotonic()
    if subprocess.run([ROOT / "tools" / "build", preset, *targets], cwd=ROOT).returncode != 0:
        print(f"the {preset} build failed")
        print("0 passed, 1 failed")
        sys.exit(1)
    print(f"built {preset} in {time.monotonic() - started:.0f} s", flush=True)


def run(command, environment):
    """Runs a suite; returns (exit code or None on timeout, output)."""
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, timeout=SUITE_TIMEOUT_SECONDS)
        return done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as expired:
        return None, (expired.stdout or b"").decode(errors="replace")


def gtest_cases(report):
    for suite in report.get("testsuites", []):
        for case in suite.get("testsuite", []):
            yield f"{suite['name']}.{case['name']}", case


def run_gtest(command, environment):
    """Runs a gtest program; returns (number passed, names of what failed, number skipped, seconds, output to show)."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        report_path = pathlib.Path(scratch) / "report.json"
        code, output = run([*command, f"--gtest_output=json:{report_path}", "--gtest_brief=1"], environment)
        report = json.loads(report_path.read_text()) if report_path.exists() else None
    passed, failures, skipped = 0, [], 0
    for case_name, case in gtest_cases(report or {}):
        if case.get("failures"):
            failures.append(case_name)
        elif case.get("result") == "SKIPPED":
            skipped += 1
        else:
            passed += 1
    if report is None or (code != 0 and not failures):
        failures.append(f"(ended with {'a timeout' if code is None else f'code {code}'})")
    return passed, failures, skipped, time.monotonic() - started, output[-8000:] if failures else ""


def count_gtest(name, outcome, tally):
    passed, failures, skipped, seconds, output = outcome
    if output:
        print(output)
    tally.add(name, passed, failures, skipped, seconds)


def run_emulated(tally, wanted, environment):
    """EMULATED, two at a time."""
    chosen = [(room, processor) for room, processor in EMULATED if wanted(f"{room}-{processor}")]
    needed = [shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64"), pathlib.Path("/usr/src/googletest").exists()]
    if chosen and not all(needed):
        print("skipped AArch64: aarch64-linux-gnu-g++, qemu-aarch64 or /usr/src/googletest is not installed")
        tally.skipped += len(chosen)
        return
    if not chosen:
        return
    build("aarch64", sorted({f"{room}_test" for room, _ in chosen}))
    print(f"     left out under emulation: {NOT_EMULATED}")

    def run_one(choice):
        room, processor = choice
        program = ROOT / "build" / "aarch64" / "tests" / f"{room}_test"
        return run_gtest(["qemu-aarch64", "-cpu", processor, program, f"--gtest_filter=-{NOT_EMULATED}"], environment)

    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        for (room, processor), outcome in zip(chosen, pool.map(run_one, chosen)):
            count_gtest(f"{room}-{processor}", outcome, tally)


def run_python(name, path, environment, tally):
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        report_path = pathlib.Path(scratch) / "report.json"
        code, output = run([sys.executable, ROOT / "tests" / "support" / "run_suite.py", path, report_path], environment)
        report = json.loads(report_path.read_text()) if report_path.exists() else None
    if report is None:
        report = {"passed": 0, "failures": [f"(ended with {'a timeout' if code is None else f'code {code}'})"], "skipped": 0}
    # What suites print are measurements and reasons for skipping; failures are in there too.
    text = output[-12000:].strip()
    if text:
        print("\n".join("     " + line for line in text.splitlines()))
    tally.add(name, report["passed"], report["failures"], report["skipped"], time.monotonic() - started)


def run_fuzzer(program, seconds):
    """Runs one libFuzzer target from its seeds; returns (exit code or None on timeout, output, seconds)."""
    started = time.monotonic()
    seeds = ROOT / "tests" / "fuzz" / program.name
    with tempfile.TemporaryDirectory() as scratch:
        corpus = pathlib.Path(scratch) / "corpus"
        corpus.mkdir()
        command = [program, f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-seed=1",
                   f"-artifact_prefix={scratch}/", corpus, *([seeds] if seeds.is_dir() else [])]
        code, output = run(command, dict(os.environ, TMPDIR=scratch))
        for artifact in pathlib.Path(scratch).glob("*-*") if code != 0 else []:
            output += f"\ninput of {artifact.name}: {artifact.read_bytes()[:4096].hex()}\n"
    return code, output, time.monotonic() - started


def run_fuzzers(tally, wanted, slow):
    """Every libFuzzer target under the sanitizers, two at a time: a minute for what reads model files, and for the others
    with --all."""
    if not shutil.which("clang++-19"):
        print("skipped fuzzing: clang++-19 is not installed")
        tally.skipped += 1
        return
    build("fuzz", ["fuzzers"])
    programs = [program for program in sorted((ROOT / "build" / "fuzz" / "fuzz").glob("*_fuzz")) if wanted(program.name)]

    def seconds_of(program):
        return FUZZ_SECONDS if slow or (ROOT / "tests" / "fuzz" / program.name).is_dir() else SHORT_FUZZ_SECONDS

    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        outcomes = pool.map(lambda program: run_fuzzer(program, seconds_of(program)), programs)
        for program, (code, output, seconds) in zip(programs, outcomes):
            if code != 0:
                print(output[-8000:])
            tally.add(program.name, int(code == 0), [] if code == 0 else [f"(ended with code {code})"], 0, seconds)


def suites(preset_directory, suffix=""):
    for program in sorted((preset_directory / "tests").glob("*_test")):
        yield program.name.removesuffix("_test") + suffix, program


def main():
    parser = argparse.ArgumentParser(description="Builds shoal and runs its tests.")
    parser.add_argument("--all", action="store_true", help="the slow tests too")
    parser.add_argument("--no-sanitizers", action="store_true", help="leave out the AddressSanitizer runs and the fuzzers")
    parser.add_argument("--no-emulation", action="store_true", help="leave out the AArch64 build, which runs under qemu-user")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only suites whose name contains one of these")
    arguments = parser.parse_args()

    def wanted(name):
        return not arguments.names or any(part in name for part in arguments.names)

    environment = dict(os.environ)
    if arguments.all:
        environment["SHOAL_TEST_ALL"] = "1"
    environment.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0")
    sanitized = [] if arguments.no_sanitizers else [room for room in SANITIZED_ROOMS if wanted(room + "-asan")]

    build("release", ["all"])
    if sanitized:
        build("asan", [f"{room}_test" for room in sanitized if list((ROOT / "src" / room).rglob("*_test.cpp"))])

    tally = Tally()
    for path in sorted((ROOT / "tests").glob("*/test_*.py")):
        name = path.stem.removeprefix("test_")
        if name == "tidy" and wanted(name):
            run_python(name, path, environment, tally)
    for name, program in suites(ROOT / "build" / "release"):
        if wanted(name):
            count_gtest(name, run_gtest([program], environment), tally)
    for name, program in suites(ROOT / "build" / "asan", "-asan"):
        if name.removesuffix("-asan") in sanitized:
            count_gtest(name, run_gtest([program], environment), tally)
    if not arguments.no_emulation:
        run_emulated(tally, wanted, environment)
    for path in sorted((ROOT / "tests").glob("*/test_*.py")):
        name = path.stem.removeprefix("test_")
        if name != "tidy" and wanted(name):
            run_python(name, path, environment, tally)

    if not arguments.no_sanitizers and (not arguments.names or any("fuzz" in name for name in arguments.names)):
        run_fuzzers(tally, wanted, arguments.all)

    for failure in tally.failures:
        print("failed:", failure)
    if tally.passed + tally.failed == 0:
        print("no suite has such a name")
        tally.failed = 1
    print(f"{tally.passed} passed, {tally.failed} failed" + (f", {tally.skipped} skipped" if tally.skipped else ""))
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
