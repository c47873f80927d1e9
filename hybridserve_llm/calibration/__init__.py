"""Fits and certifies whole policies, offline; needs numpy, scipy and scikit-learn."""
