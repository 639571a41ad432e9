"""A search over the tree: trainings that share their work, and what they tell.

Nothing is imported here: a worker has no use for MLflow, which takes seconds.
"""
