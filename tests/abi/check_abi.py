"""What the shared library promises: exactly the symbols of exports.txt, all versioned; headers that
compile alone as C11 and as C++; and no change of the binary interface against the committed
baseline that docs/abi.md does not tell.

    check_abi.py LIBRARY INCLUDE HERE            checks
    check_abi.py LIBRARY INCLUDE HERE --write    writes the baseline; needs debug information
"""

import glob, os, re, shutil, subprocess, sys, tempfile

library, include, here = sys.argv[1:4]


def run(*args):
    return subprocess.run(args, capture_output=True, text=True)


def check_exports():
    found = set()
    for line in run(
        "nm", "-D", "--defined-only", "--with-symbol-versions", library
    ).stdout.splitlines():
        kind, symbol = line.split()[1:3]
        if kind == "A":
            continue
        name, _, version = symbol.partition("@@")
        if not version:
            return f"{name} is exported without a version"
        found.add(name)
    wanted = set(open(os.path.join(here, "exports.txt")).read().split())
    problems = [
        f"{n} is exported, but not in tests/abi/exports.txt" for n in sorted(found - wanted)
    ]
    problems += [
        f"{n} is in tests/abi/exports.txt, but not exported" for n in sorted(wanted - found)
    ]
    declared = set()
    for header in glob.glob(os.path.join(include, "eqat", "*.h")):
        declared |= set(re.findall(r"EQAT_API[^;]*?\b(eqat_\w+)\(", open(header).read()))
    problems += [f"{n} is exported, but no header declares it" for n in sorted(found - declared)]
    problems += [f"{n} is declared, but not exported" for n in sorted(declared - found)]
    return "\n".join(problems)


def check_headers():
    problems = []
    for header in sorted(glob.glob(os.path.join(include, "eqat", "*.h"))):
        name = "eqat/" + os.path.basename(header)
        for compiler, language, standard in (
            ("cc", "c", "c11"),
            ("c++", "c++", "c++11"),
            ("c++", "c++", "c++20"),
        ):
            if not shutil.which(compiler):
                continue
            with tempfile.NamedTemporaryFile("w", suffix="." + language) as f:
                f.write(f"#include <{name}>\n#include <{name}>\n")
                f.flush()
                r = run(
                    compiler,
                    "-x",
                    language,
                    f"-std={standard}",
                    "-Wall",
                    "-Wextra",
                    "-Werror",
                    "-pedantic",
                    "-fsyntax-only",
                    "-I",
                    include,
                    f.name,
                )
                if r.returncode:
                    problems.append(f"{name} as {standard}: {r.stderr.splitlines()[0]}")
        for included in re.findall(r"#include [<\"](.*?)[>\"]", open(header).read()):
            if included not in ("stddef.h", "stdint.h", "stdbool.h") and not included.startswith(
                "eqat/"
            ):
                problems.append(f"{name} includes {included}")
    return "\n".join(problems)


# What a library does not do to the process it is in.
FORBIDDEN = """exit _exit _Exit quick_exit abort raise __assert_fail atexit on_exit printf puts
putchar fprintf vprintf vfprintf fputs fputc fwrite perror __printf_chk __fprintf_chk stdout stderr
stdin signal sigaction setlocale uselocale setenv putenv unsetenv chdir umask srand rand random
strtok system popen fork execve fesetround feenableexcept""".split()
OF_THE_COMPILER = {"completed.0", "__cpu_model", "__cpu_features2", "__TMC_END__", "__dso_handle"}


def check_manners():
    problems = []
    for line in run("nm", "-D", "--undefined-only", library).stdout.splitlines():
        name = line.split()[-1].partition("@")[0]
        if name in FORBIDDEN:
            problems.append(f"{name} is called")
    sections = {}
    for line in run("readelf", "-SW", library).stdout.splitlines():
        found = re.match(r" *\[ *\d+\] (\S+) +\S+ +([0-9a-f]+) +\S+ +([0-9a-f]+)", line)
        if found:
            sections[found[1]] = (int(found[2], 16), int(found[3], 16))
    writable = [sections[n] for n in (".data", ".bss", ".tdata", ".tbss") if n in sections]
    for line in run("nm", library).stdout.splitlines():
        address, kind, name = line.split()[-3:] if len(line.split()) == 3 else ("0", "", "")
        inside = any(at <= int(address, 16) < at + size for at, size in writable)
        if kind in "dDbB" and inside and name not in OF_THE_COMPILER:
            problems.append(f"{name} is global and can be written")
    return "\n".join(problems)


def write_baseline():
    r = run(
        "abidw",
        "--headers-dir",
        os.path.join(include, "eqat"),
        "--drop-private-types",
        "--exported-interfaces-only",
        "--no-elf-needed",
        "--no-corpus-path",
        "--no-comp-dir-path",
        "--no-show-locs",
        "--type-id-style",
        "hash",
        library,
    )
    sources = os.path.dirname(os.path.abspath(include))
    with open(os.path.join(here, "libeqat.abi"), "w") as f:
        for line in r.stdout.splitlines():
            path = re.search(r" path='([^']*)'", line)
            if path:
                full = os.path.normpath(
                    os.path.join(
                        os.path.dirname(os.path.dirname(os.path.abspath(library))), path[1]
                    )
                )
                line = line.replace(path[1], os.path.relpath(full, sources))
            f.write(line + "\n")
    return r.stderr


def check_baseline():
    baseline = os.path.join(here, "libeqat.abi")
    if not shutil.which("abidiff"):
        print("abidiff is not installed: the baseline was not compared")
        return ""
    r = run(
        "abidiff",
        "--headers-dir2",
        os.path.join(include, "eqat"),
        "--drop-private-types",
        baseline,
        library,
    )
    return r.stdout if r.returncode else ""


if sys.argv[4:] == ["--write"]:
    sys.exit(write_baseline() or 0)

failed = 0
for check in (check_exports, check_headers, check_manners, check_baseline):
    problem = check()
    print(f"{check.__name__}: {problem or 'ok'}")
    failed |= bool(problem)
sys.exit(failed)
