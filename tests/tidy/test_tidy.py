"""Keeps the house as DESIGN draws it: imports point down, rooms have doors, files and functions stay readable."""

import json
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SOURCE = ROOT / "src"

# Highest room first; a room may include itself and rooms below it.
ROOMS = ["cli", "api", "serving", "cluster", "planner", "scheduler", "hub", "worker", "runtime", "model", "engine", "link",
         "text", "formats", "base"]
OTHER_ROOMS = ["bridge", "tests", "bench", "tools", "web", "models"]

FILE_LINES = 400
FUNCTION_LINES = 70
# path -> why it may be longer. Short by intention: look for the second idea in a file before adding it here.
LONG_FILES = json.loads((ROOT / "tests" / "tidy" / "exceptions.json").read_text())["files"]
LONG_FUNCTIONS = json.loads((ROOT / "tests" / "tidy" / "exceptions.json").read_text())["functions"]


def sources():
    return sorted(path for path in SOURCE.rglob("*") if path.suffix in (".h", ".cpp"))


def room_of(path):
    return path.relative_to(SOURCE).parts[0]


def function_lengths(text):
    """Yields (line number, length) of every brace-delimited body that starts at a line in column 0 and ends with a
    closing brace in column 0: with clang-format that is every free function and out-of-line member."""
    start = None
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"^[A-Za-z_].*[)>a-z&]\s*(const|noexcept|override|\s)*\{$", line) and not re.match(
                r"^(namespace|struct|class|enum|union|extern)\b", line):
            start = number
        elif re.match(r"^(template|struct|class|enum|namespace)\b", line):
            start = None
        elif line == "}" and start is not None:
            yield start, number - start + 1
            start = None


class Tidy(unittest.TestCase):
    def test_includes_point_down(self):
        wrong = []
        for path in sources():
            allowed = ROOMS[ROOMS.index(room_of(path)):] + ["bridge"]
            for number, line in enumerate(path.read_text().splitlines(), 1):
                found = re.match(r'#include "([a-z_]+)/', line)
                if found and found[1] in ROOMS + ["bridge"] and found[1] not in allowed:
                    wrong.append(f"{path.relative_to(ROOT)}:{number} includes {found[1]}/ from {room_of(path)}/")
        self.assertEqual(wrong, [])

    def test_every_room_has_a_readme(self):
        rooms = [SOURCE / room for room in ROOMS] + [ROOT / room for room in OTHER_ROOMS]
        self.assertEqual([str(room.relative_to(ROOT)) for room in rooms if not (room / "README.md").exists()], [])

    def test_platform_code_stays_in_base(self):
        wrong = [str(path.relative_to(ROOT)) for path in sources()
                 if room_of(path) != "base" and re.search(r"\b(__APPLE__|__linux__|_WIN32)\b", path.read_text())]
        self.assertEqual(wrong, [])

    def test_headers_open_with_what_they_are_for(self):
        wrong = []
        for path in sources():
            if path.suffix == ".h" and not path.read_text().startswith("//"):
                wrong.append(str(path.relative_to(ROOT)))
        self.assertEqual(wrong, [])

    def test_files_are_chapters(self):
        long = {}
        for path in sources():
            lines = len(path.read_text().splitlines())
            name = str(path.relative_to(ROOT))
            if lines > FILE_LINES and name not in LONG_FILES:
                long[name] = lines
        self.assertEqual(long, {}, f"over {FILE_LINES} lines: look for the second idea, or reason in tests/tidy/exceptions.json")

    def test_functions_fit_a_screen(self):
        long = []
        for path in sources():
            name = str(path.relative_to(ROOT))
            if name.endswith("_test.cpp") or name in LONG_FUNCTIONS:
                continue
            long += [f"{name}:{line} ({length} lines)" for line, length in function_lengths(path.read_text())
                     if length > FUNCTION_LINES]
        self.assertEqual(long, [])

    def test_exceptions_are_still_needed(self):
        gone = [name for name in [*LONG_FILES, *LONG_FUNCTIONS] if not (ROOT / name).exists()]
        self.assertEqual(gone, [])
        short = [name for name in LONG_FILES if len((ROOT / name).read_text().splitlines()) <= FILE_LINES]
        self.assertEqual(short, [])

    def test_dependencies_are_listed(self):
        listed = (ROOT / "docs" / "dependencies.md").read_text()
        crates = re.findall(r"^([a-z][a-z0-9_-]*) = ", (ROOT / "bridge" / "Cargo.toml").read_text().split("[dependencies]")[1]
                            .split("[profile")[0], re.M)
        self.assertGreater(len(crates), 2)
        self.assertEqual([crate for crate in crates if crate not in listed], [])

    def test_no_stray_words(self):
        """The project speaks of itself alone."""
        files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        wrong = []
        for name in files:
            path = ROOT / name
            if path.suffix in (".gguf", ".safetensors", ".lock", ".png") or "fixtures" in name or not path.is_file():
                continue
            text = path.read_text(errors="replace")
            for word in ("/work" + "/", "crates" + ".io", "py" + "pi.org", "npm" + "js"):
                if word in text:
                    wrong.append(f"{name}: {word}")
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main()
