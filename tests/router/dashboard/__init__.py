"""Mirrors `router/dashboard`."""
