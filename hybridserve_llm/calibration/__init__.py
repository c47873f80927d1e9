"""Fit and certify whole policies offline; needs numpy, scipy and scikit-learn."""
