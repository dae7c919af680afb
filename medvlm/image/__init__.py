"""Pixels as the model sees them: rendering, geometry and the header part of the gate.

Patient identity ends below this package: only pixels, spacing, orientation and UIDs pass.
"""
