"""Tests of the house itself: its layers, and that every file says what it is for."""
