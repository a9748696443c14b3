"""Readers of file formats: IDX, CIFAR-10 batches, NumPy files and pictures.

A file never runs code, and it never takes more memory than it can fill. Errors are one line and name the file.
"""
