"""Comparisons of training methods: methods x data splits x seeds, from one YAML file."""
