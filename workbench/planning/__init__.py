"""From a plan (TOML, preset, flags) to checked runs; suites are created in `suites`."""
