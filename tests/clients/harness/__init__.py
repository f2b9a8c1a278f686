"""Builds the client programs and drives them."""
