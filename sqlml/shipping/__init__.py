"""Endpoints for other machines: an image's context, manifests for a cluster.  See the README of this folder."""
