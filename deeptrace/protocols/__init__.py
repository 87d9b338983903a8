"""L7 protocols (sources in ext/protocols), one module each, found by listing this package."""
