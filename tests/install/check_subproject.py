"""libeqat as a subproject of meson."""

import json, os, shutil, tempfile, unittest

from installed import SOURCE, run, write


class Subproject(unittest.TestCase):
    """Configured, and one file compiled: a whole build belongs to the build that is tested."""

    PROJECT = """
project('app', 'cpp', version: '1', default_options: 'cpp_std=c++17')
eqat = dependency('eqat', version: '>=0.1', fallback: 'libeqat')
executable('app', 'app.cpp', dependencies: eqat)
"""
    PROGRAM = """
#include <eqat/eqat.h>
#include <eqat/eqat.hpp>
int main() { return eqat::version() != eqat_version(); }
"""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="eqat-subproject-")
        self.addCleanup(shutil.rmtree, self.dir)
        write(self.dir + "/meson.build", self.PROJECT)
        write(self.dir + "/app.cpp", self.PROGRAM)
        os.mkdir(self.dir + "/subprojects")
        os.symlink(SOURCE, self.dir + "/subprojects/libeqat")

    def configure(self, *options):
        build = tempfile.mkdtemp(dir=self.dir)
        run("meson", "setup", build, self.dir, "--wrap-mode=forcefallback", *options)
        targets = json.loads(run("meson", "introspect", "--targets", build))
        tests = json.loads(run("meson", "introspect", "--tests", build))
        return build, {t["name"] for t in targets}, tests

    def test_the_library_alone(self):
        build, targets, tests = self.configure()
        self.assertIn("app", targets)
        self.assertFalse(targets & {"eqat_tool", "train_tiny", "run-suite"})
        self.assertEqual(tests, [])
        run("ninja", "-C", build, "app.p/app.cpp.o")
        installed = json.loads(run("meson", "introspect", "--installed", build))
        self.assertFalse([p for p in installed.values() if "/doc/" in p])

    def test_with_the_tool(self):
        _, targets, _ = self.configure("-Dlibeqat:examples=enabled")
        self.assertIn("train_tiny", targets)


if __name__ == "__main__":
    unittest.main()
