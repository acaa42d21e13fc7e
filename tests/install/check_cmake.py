"""libeqat as CMake finds it."""

import tempfile, unittest

from installed import Installed, need, run, write


class CMake(Installed):
    def project(self, *lines):
        path = tempfile.mkdtemp(dir=self.dir)
        head = ["cmake_minimum_required(VERSION 3.14)", "project(test C)"]
        write(path + "/CMakeLists.txt", "\n".join([*head, *lines]))
        return path

    def test_static_target(self):
        if not self.static:
            self.skipTest("a shared build")
        build = self.examples("-Deqat_USE_STATIC_LIBS=ON")
        self.assertNotIn("libeqat", run("ldd", build + "/inference_engine"))

    def test_versions(self):
        for wanted in ("", "0", "0.1", "0.1.0", "0.1.0 EXACT", "0.1...0.3"):
            self.configure(self.project(f"find_package(eqat {wanted} REQUIRED)"))
        for wanted in ("0.2", "1", "0.0.9", "0.1.1", "0.2...1", "0.0...<0.1.0"):
            with self.assertRaisesRegex(AssertionError, "version"):
                self.configure(self.project(f"find_package(eqat {wanted} REQUIRED)"))

    def test_components(self):
        for component, there in (("shared", self.shared), ("static", self.static)):
            wanted = f"find_package(eqat REQUIRED COMPONENTS {component})"
            if there:
                self.configure(self.project(wanted))
            else:
                with self.assertRaisesRegex(AssertionError, f"Component {component} is not there"):
                    self.configure(self.project(wanted))

    def test_what_the_archive_needs_is_missing(self):
        if not self.static:
            self.skipTest("a shared build")
        hidden = "set(eqat_jansson_LIBRARY eqat_jansson_LIBRARY-NOTFOUND)"
        off = "set(CMAKE_FIND_LIBRARY_PREFIXES none)"
        wanted = "find_package(eqat REQUIRED COMPONENTS static)"
        with self.assertRaisesRegex(AssertionError, "libeqat.a needs libjansson"):
            self.configure(self.project(hidden, off, wanted))
        if self.shared:
            self.configure(self.project(hidden, off, "find_package(eqat REQUIRED)"))


if __name__ == "__main__":
    need("cmake")
    unittest.main()
