"""The version of this command line: a constant, because asking the package's metadata costs more than a start may."""

VERSION = "0.1.0"
