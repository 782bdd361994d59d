"""Compiles everything portable for macOS (arm64), which cannot run here: `./test --all` only. The cross compiler comes
from Python's package index into the cache directory; without it the suite is skipped with the reason."""

import concurrent.futures
import os
import pathlib
import subprocess
import tempfile
import unittest

from support.environment import python_with

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
COMPILER = "ziglang==0.14.1"
# Header-only libraries of this machine that do not depend on the platform.
LIBRARIES = ["boost", "fmt", "CLI", "editline"]
X86_FOLDERS = ("avx2", "avx512", "amx")
# Units for what only newer processors have.
FLAGS_OF = {"kernels_i8mm.cpp": ["-mcpu=apple_m2"]}


def portable_sources():
    return [path for path in sorted((ROOT / "src").rglob("*.cpp"))
            if not path.stem.endswith(("_linux", "_test", "_fuzz")) and path.parent.name not in X86_FOLDERS]


def compiler():
    python, reason = python_with(COMPILER, "compilers")
    return [python, "-m", "ziglang", "c++"] if python else None, reason


@unittest.skipUnless(os.environ.get("SHOAL_TEST_ALL"), "only with --all")
class MacOs(unittest.TestCase):
    def test_every_portable_file_compiles(self):
        command, reason = compiler()
        if not command:
            self.skipTest(f"no cross compiler: {reason}")
        with tempfile.TemporaryDirectory() as scratch:
            for library in LIBRARIES:
                header = pathlib.Path("/usr/include") / library
                if header.exists():
                    (pathlib.Path(scratch) / library).symlink_to(header)
            (pathlib.Path(scratch) / "histedit.h").symlink_to("/usr/include/histedit.h")

            # It keeps every object it makes; not beyond this test.
            environment = {**os.environ, "ZIG_LOCAL_CACHE_DIR": f"{scratch}/cache", "ZIG_GLOBAL_CACHE_DIR": f"{scratch}/cache"}

            def compile_one(path):
                # Objects, because with -fsyntax-only this compiler fails for want of a file to move into its cache.
                target = pathlib.Path(scratch) / "objects" / path.relative_to(ROOT).with_suffix(".o")
                target.parent.mkdir(parents=True, exist_ok=True)
                done = subprocess.run([*command, "-target", "aarch64-macos", "-std=c++23", "-c", "-o", str(target),
                                       "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wnon-virtual-dtor", "-Werror", "-DFMT_HEADER_ONLY",
                                       "-DBOOST_ERROR_CODE_HEADER_ONLY", "-DBOOST_ASIO_NO_DEPRECATED", '-DSHOAL_VERSION="0"',
                                       f"-I{ROOT / 'src'}", f"-I{ROOT / 'bridge' / 'include'}", "-isystem", scratch, *FLAGS_OF.get(path.name, []),
                                       str(path)],
                                      capture_output=True, text=True, env=environment)
                target.unlink(missing_ok=True)
                return path, done.returncode, done.stderr

            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                results = list(pool.map(compile_one, portable_sources()))
        self.assertGreater(len(results), 40)
        failed = [f"{path.relative_to(ROOT)}\n{errors[:1500]}" for path, code, errors in results if code != 0]
        print(f"{len(results) - len(failed)} of {len(results)} files compile for macOS")
        self.assertEqual(failed, [], "\n".join(failed))


if __name__ == "__main__":
    unittest.main()
