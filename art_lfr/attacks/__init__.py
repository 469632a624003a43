"""A model under attack and an attack on it, each in one form."""
