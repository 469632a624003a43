"""The mathematics and what it stands on: balls, gradients, the ascent, settings, checks.

Neither ART nor an attack library is imported here.
"""
