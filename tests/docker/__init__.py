"""Tests of the image that the Dockerfile builds."""
