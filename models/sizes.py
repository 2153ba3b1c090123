"""Sizes in bytes, by the names that people use."""

from __future__ import annotations

MIB = 1024 * 1024
GIB = 1024 * MIB
