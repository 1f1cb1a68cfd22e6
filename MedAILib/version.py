"""The library's version, as written to every result's provenance."""

VERSION = "0.1.0"
