"""Kernels written in Pallas, and how each cuts a convolution into blocks.

A plan is integers only and says whether a kernel can serve; the files of kernels import Pallas and
are loaded when a kernel is lowered.
"""
