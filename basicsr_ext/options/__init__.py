"""The language of option files: YAML, sources, problems, structures, suggestions. No torch."""
