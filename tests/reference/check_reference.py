"""The HTML reference of headers and pages: doxygen has nothing to warn of, every page and every
public function is in it, and every link within it leads somewhere."""

import html.parser, pathlib, re, shutil, subprocess, sys, tempfile, unittest, urllib.parse

SOURCE, DOXYFILE = map(pathlib.Path, (sys.argv.pop(1), sys.argv.pop(1)))


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.names, self.links = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            if key in ("id", "name"):
                self.names.add(value)
            elif key in ("href", "src") and tag in ("a", "img") and value:
                self.links.add(value)


class Reference(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.TemporaryDirectory(prefix="eqat-reference-")
        cls.addClassCleanup(cls.work.cleanup)
        text = re.sub(
            r"(?m)^OUTPUT_DIRECTORY.*", f"OUTPUT_DIRECTORY = {cls.work.name}", DOXYFILE.read_text()
        )
        cls.doxygen = subprocess.run(["doxygen", "-"], input=text, capture_output=True, text=True)
        folder = pathlib.Path(cls.work.name, "html")
        cls.pages = {path.name: Page(path.read_text()) for path in folder.glob("*.html")}
        cls.files = {str(path.relative_to(folder)) for path in folder.rglob("*")}

    def test_no_warning(self):
        self.assertEqual(
            (self.doxygen.returncode, self.doxygen.stdout + self.doxygen.stderr), (0, "")
        )

    def test_links(self):
        broken = []
        for name, page in self.pages.items():
            for link in page.links:
                url = urllib.parse.urlsplit(link)
                if url.scheme:
                    continue
                target = url.path or name
                if target not in self.files:
                    broken.append((name, link))
                elif url.fragment and url.fragment not in self.pages[target].names:
                    broken.append((name, link))
        self.assertEqual(broken, [])

    def test_every_page(self):
        for path in SOURCE.glob("docs/*.md"):
            name = "md_docs_" + path.stem.replace("-", "_") + ".html"
            self.assertIn(name, self.pages)
        for name in ("index.html", "md_CHANGELOG.html", "md_SECURITY.html"):
            self.assertIn(name, self.pages)

    def test_every_function(self):
        text = "".join(
            pathlib.Path(self.work.name, "html", name).read_text()
            for name in self.files
            if re.fullmatch(r"\w+_8h\.html", name)
        )
        exports = SOURCE / "tests" / "abi" / "exports.txt"
        told = set(re.findall(r"(eqat_\w+)\(\)</h2>", text))
        self.assertEqual(set(exports.read_text().split()) - told, set())


if __name__ == "__main__":
    if not shutil.which("doxygen"):
        print("skipped: needs doxygen")
        sys.exit(77)
    unittest.main()
