# Gives the headings of a Markdown page names, and makes links to a heading of a page links to the
# name: doxygen before 1.10 knows no others. "## The life of a block" in docs/architecture.md is
# architecture-the-life-of-a-block.
function page_of(path) {
    sub(/.*\//, "", path)
    sub(/\.md$/, "", path)
    return path
}

/^ *```/ { fenced = !fenced }

!fenced && /^##+ / {
    name = tolower($0)
    gsub(/^#+ |[^a-z0-9 _-]/, "", name)
    gsub(/ /, "-", name)
    print $0 " {#" page_of(FILENAME) "-" name "}"
    next
}

!fenced {
    line = ""
    rest = $0
    while (match(rest, /\]\([a-zA-Z\/_-]*(\.md)?#[a-z0-9_-]+\)/)) {
        link = substr(rest, RSTART + 2, RLENGTH - 3)
        split(link, part, "#")
        page = part[1] == "" ? page_of(FILENAME) : page_of(part[1])
        line = line substr(rest, 1, RSTART) "(@ref " page "-" part[2] ")"
        rest = substr(rest, RSTART + RLENGTH)
    }
    print line rest
    next
}

{ print }
