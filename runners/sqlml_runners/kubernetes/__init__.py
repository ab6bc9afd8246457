"""Jobs on Kubernetes: each a batch/v1 Job whose pod runs the worker.  See the README of this folder."""
