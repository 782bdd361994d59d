"""run_suite.py SUITE.py REPORT.json: runs one unittest file and writes {"passed", "failures", "skipped"}."""

import importlib.util
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))


def main():
    suite_path, report_path = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    spec = importlib.util.spec_from_file_location(suite_path.stem, suite_path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[suite_path.stem] = module
    spec.loader.exec_module(module)
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0).run(suite)
    failures = [str(test) for test, _ in result.failures + result.errors]
    for test, reason in result.skipped:
        print(f"skipped {test}: {reason}")
    report = {"passed": result.testsRun - len(failures) - len(result.skipped), "failures": failures,
              "skipped": len(result.skipped)}
    report_path.write_text(json.dumps(report))
    sys.exit(0 if not failures else 1)


if __name__ == "__main__":
    main()
