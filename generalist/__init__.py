"""Generalist: image classifiers that are both accurate and adversarially robust.

Nothing is imported here: ``import generalist.config`` must stay as cheap as reading a file.
"""
