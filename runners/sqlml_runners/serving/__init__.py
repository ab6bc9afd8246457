"""Endpoints over HTTP: the protocol, the server and its control.  See the README of this folder."""
