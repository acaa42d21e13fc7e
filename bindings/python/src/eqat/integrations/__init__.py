"""Models of libeqat inside other projects' programs; each module needs that project."""
