"""Seeing where a network looks: its keys on the picture, what a query is made of, and its effective receptive field."""
