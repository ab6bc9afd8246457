"""What a job does in its worker: Arrow rows in, a bundle and an outcome out."""

from sqlml.training.aims import choose_algorithm
from sqlml.training.folds import run_folds
from sqlml.training.run import run_training

__all__ = ["choose_algorithm", "run_folds", "run_training"]
