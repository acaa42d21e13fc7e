"""The C++ headers: each compiles alone, with every compiler there is, with and without exceptions,
from C++17 on; and together they call every function of the C interface.

    check_headers.py SOURCE"""

import concurrent.futures, os, re, shutil, subprocess, sys, tempfile, unittest

SOURCE = sys.argv.pop(1)
HEADERS = os.path.join(SOURCE, "bindings", "cpp")
STRICT = "-Wall -Wextra -Wshadow -Wconversion -pedantic -Werror -fsyntax-only".split()
COMPILERS = [c for c in ("g++", "clang++") if shutil.which(c)]


def names():
    return sorted(os.listdir(os.path.join(HEADERS, "eqat")))


def compile(compiler, header, *flags):
    with tempfile.NamedTemporaryFile("w", suffix=".cpp") as f:
        f.write(f"#include <eqat/{header}>\n#include <eqat/{header}>\n")
        f.flush()
        include = ["-I", HEADERS, "-I", os.path.join(SOURCE, "include")]
        r = subprocess.run(
            [compiler, *STRICT, *flags, *include, f.name], capture_output=True, text=True
        )
    return r.stderr


class Headers(unittest.TestCase):
    def test_they_compile(self):
        """The whole in every dialect, each header alone in one."""
        dialects = (["-std=c++17"], ["-std=c++20", "-fno-exceptions"])
        jobs = [(c, "eqat.hpp", *flags) for c in COMPILERS for flags in dialects]
        jobs += [(COMPILERS[0], header, "-std=c++17") for header in names()]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for job, complaints in zip(jobs, pool.map(lambda job: compile(*job), jobs)):
                with self.subTest(job=job):
                    self.assertEqual(complaints, "")

    def test_nothing_is_missing(self):
        text = ""
        for header in names():
            with open(os.path.join(HEADERS, "eqat", header)) as f:
                text += f.read()
        with open(os.path.join(SOURCE, "tests", "abi", "exports.txt")) as f:
            exports = set(f.read().split())
        called = set(re.findall(r"\beqat_\w+\b", text))
        self.assertEqual(exports - called - {"eqat_block_ap_quantize", "eqat_e2e_qp_train"}, set())


if __name__ == "__main__":
    if not COMPILERS:
        print("skipped: no C++ compiler")
        sys.exit(77)
    unittest.main()
