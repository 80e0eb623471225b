"""Tests on a real server: what its users see."""
